"""The scripts beside `slurm/adapt.sbatch`, and what all of them share, with a stub of hpc-llm."""

import re
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

SCRIPTS = Path(__file__).resolve().parents[2] / "slurm"
WAIT = ("sbatch", "--wait", "--parsable")
WORDS = ["run=a b", "x='single' \"double\"", "z=$HOME;*", ""]

# In the place of apptainer: notes its options and runs what comes after the image
APPTAINER = """#!/bin/bash
echo "$@" > apptainer.args
while [[ $1 != *.sif ]]; do shift; done
shift
exec "$@"
"""


def submit(cluster, verb: str, *options: str, words=(), **variables: str) -> str:
    """Run a script to its end and return the job id."""
    script = str(SCRIPTS / f"{verb}.sbatch")
    return cluster.output(*WAIT, *options, script, *words, **variables).split()[0]


def last_words(cluster, job: str) -> list[list[str]]:
    return [place["argv"] for place in cluster.places(job)]


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sbatch")), ids=lambda path: path.stem)
def test_what_slurm_reads_has_no_variables_and_names_the_job(script: Path) -> None:
    directives = re.findall(r"^#SBATCH.*", script.read_text(), re.MULTILINE)
    assert f"#SBATCH --job-name={script.stem}" in directives
    assert not [line for line in directives if "$" in line]


def test_train_gets_its_words_on_one_task_for_each_gpu(slurm_cluster) -> None:
    job = submit(slurm_cluster, "train", "-N2", "--gpus-per-node=2", "--exclusive", words=WORDS)
    assert last_words(slurm_cluster, job) == [["train", *WORDS]] * 4


def test_train_that_stops_early_starts_again(slurm_cluster) -> None:
    scontrol = shutil.which("scontrol", path=slurm_cluster.environment["PATH"])
    slow = slurm_cluster.folder / "bin" / "scontrol"  # Slurm's signal comes before it returns
    slow.write_text(f'#!/bin/bash\n{scontrol} "$@" && sleep 1\n')
    slow.chmod(0o755)
    act = "barrier()\nif ranks.restart_count == 0: raise Stopped"
    job = submit(slurm_cluster, "train", "-N2", words=["a=b c"], ACT=act)
    slurm_cluster.wait_for_state(job, "COMPLETED 1")
    assert re.search(r"train\.sbatch: .*requeued.*restart 1\b.*\b20\b", slurm_cluster.logs())


def test_evaluate_is_one_task_on_one_gpu(slurm_cluster) -> None:
    job = submit(slurm_cluster, "evaluate", words=WORDS)
    (place,) = slurm_cluster.places(job)
    assert place["argv"] == ["evaluate", *WORDS]
    assert place["environment"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert (slurm_cluster.folder / f"evaluate-{job}.out").exists()


def test_tokenizer_reads_the_text_first_and_needs_no_gpu(slurm_cluster) -> None:
    act = "open('verbs', 'a').write(sys.argv[1] + '\\n')"
    job = submit(slurm_cluster, "tokenizer", "--cpus-per-task=2", words=WORDS, ACT=act)
    (place,) = slurm_cluster.places(job)  # of the second step; that of the first is overwritten
    assert place["argv"] == ["tokenizer", *WORDS]
    assert (slurm_cluster.folder / "verbs").read_text().split() == ["corpus", "tokenizer"]
    assert place["environment"]["OMP_NUM_THREADS"] == "1"  # as the tests have it
    assert place["environment"]["SLURM_CPUS_PER_TASK"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in place["environment"]


def test_tokenizer_does_not_follow_a_corpus_that_failed(slurm_cluster) -> None:
    script = str(SCRIPTS / "tokenizer.sbatch")
    done = slurm_cluster.run(*WAIT, script, ACT="sys.exit(3)")
    assert done.returncode == 3
    assert last_words(slurm_cluster, done.stdout.split()[0]) == [["corpus"]]


def test_preflight_is_one_task_for_each_gpu(slurm_cluster) -> None:
    options = ("-N2", "--gpus-per-node=2", "--ntasks-per-node=2")
    job = submit(slurm_cluster, "preflight", *options, words=["cluster=h100_4x8"])
    words = ["preflight", "run=preflight", "cluster=h100_4x8"]
    assert last_words(slurm_cluster, job) == [words] * 4


@pytest.mark.parametrize("verb", ["adapt", "train"])
def test_failed_preflight_ends_the_job_before_the_work(slurm_cluster, verb: str) -> None:
    script = str(SCRIPTS / f"{verb}.sbatch")
    act = "sys.exit(2 if sys.argv[1] == 'preflight' else 0)"
    done = slurm_cluster.run(*WAIT, script, "a=b c", HPC_LLM_PREFLIGHT="1", ACT=act)
    assert done.returncode == 2
    assert last_words(slurm_cluster, done.stdout.split()[0]) == [["preflight", "a=b c"]]


def test_file_of_the_site_is_sourced(slurm_cluster) -> None:
    setup = slurm_cluster.folder / "my setup.sh"
    setup.write_text('export SITE="modules $UNKNOWN are loaded"\n')
    job = submit(slurm_cluster, "train", HPC_LLM_SETUP=str(setup))
    (place,) = slurm_cluster.places(job)
    assert place["environment"]["SITE"] == "modules  are loaded"


def test_apptainer_has_hpc_llm(slurm_cluster) -> None:
    program = slurm_cluster.folder / "bin" / "apptainer"
    program.write_text(APPTAINER)
    program.chmod(0o755)
    options = {"HPC_LLM_CONTAINER": "/images/my.sif", "HPC_LLM_CONTAINER_OPTIONS": "--bind /data"}
    job = submit(slurm_cluster, "train", "--gpus-per-node=1", "-n1", words=WORDS, **options)
    assert last_words(slurm_cluster, job) == [["train", *WORDS]]
    told = (slurm_cluster.folder / "apptainer.args").read_text()
    assert told.startswith(f"exec --nv --bind {slurm_cluster.folder} --bind /data /images/my.sif")


def test_pyxis_is_asked_for_the_image(slurm_cluster) -> None:
    done = slurm_cluster.run(*WAIT, str(SCRIPTS / "train.sbatch"), HPC_LLM_PYXIS="nvcr.io#a/b:1")
    assert done.returncode != 0  # this Slurm has no pyxis, and says what it does not know
    assert "unrecognized option '--container-image=nvcr.io#a/b:1'" in slurm_cluster.logs()


def test_ranks_have_logs_of_their_own(slurm_cluster) -> None:
    variables = {"HPC_LLM_RANK_LOGS": "logs", "ACT": "print('I am', ranks.rank)"}
    job = submit(slurm_cluster, "train", "-N2", "--ntasks-per-node=1", **variables)
    for rank in (0, 1):
        log = slurm_cluster.folder / "logs" / f"train-{job}-{rank}.out"
        assert log.read_text() == f"I am {rank}\n"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"HPC_LLM_HOME": "/nowhere"}, "/nowhere/slurm/common.sh; .*HPC_LLM_HOME="),
        ({"HPC_LLM_SETUP": "/nowhere"}, "HPC_LLM_SETUP=/nowhere: "),
        ({"HPC_LLM_CONTAINER": "a.sif"}, "HPC_LLM_CONTAINER=a.sif: .*apptainer.*PATH"),
        ({"HPC_LLM_CONTAINER": "a", "HPC_LLM_PYXIS": "b"}, "HPC_LLM_CONTAINER.*HPC_LLM_PYXIS"),
    ],
)
def test_wrong_input_is_reported(slurm_cluster, variables: dict[str, str], words: str) -> None:
    done = slurm_cluster.run(*WAIT, str(SCRIPTS / "train.sbatch"), **variables)
    assert done.returncode == 2
    assert re.search(words, slurm_cluster.logs())
    assert slurm_cluster.places("*") == []


def test_what_is_shared_is_found_below_the_folder_of_sbatch_or_hpc_llm_home(slurm_cluster) -> None:
    checkout = slurm_cluster.folder / "a checkout"
    shutil.copytree(SCRIPTS, checkout / "slurm")
    script = shutil.copy(SCRIPTS / "train.sbatch", slurm_cluster.folder / "mine.sbatch")
    submit_mine = (*WAIT, script)
    assert slurm_cluster.run(*submit_mine).returncode == 2
    slurm_cluster.output(*submit_mine, HPC_LLM_HOME=str(checkout))
    slurm_cluster.output(*WAIT, f"--chdir={checkout}", str(checkout / "slurm" / "train.sbatch"))
    (slurm_cluster.folder / "slurm").symlink_to(checkout / "slurm")
    slurm_cluster.output(*submit_mine)
