"""Limits of the process: named with their values in one line, and asked before memory is taken."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_llm.app.main import main
from hpc_llm.distributed import available_bytes, explain_limit

MIB = 2**20


@pytest.fixture
def limit_files():
    """Set the largest size of a file of this process, in KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda kib: resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("kib", "verb", "place"),
    [(1, "corpus", "config.yaml"), (20, "corpus", "corpus"), (30, "tokenizer", "tokenizer")],
)
def test_a_file_that_may_not_grow_is_one_line(
    limit_files, kib: int, verb: str, place: str, shared: Path, tmp_path: Path, capfd
) -> None:
    words = ["experiment=example", f"runs_dir={tmp_path}/runs", "cache=false", "tracking=off"]
    words += ["corpus.max_documents=60", "run=a", "recipe=two_stage"]
    words += [f"model.path={shared}/data/models/stories260K-hf", "tokenizer.vocab_size=1024"]
    if verb == "tokenizer":
        main(["corpus", *words])
    capfd.readouterr()
    limit_files(kib)
    code = main([verb, *words])
    said = capfd.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("hpc-llm: ")]
    assert (code, len(lines)) == (2, 1), said
    assert "Traceback" not in said
    assert f"{kib} KiB" in lines[0]
    assert f"{tmp_path}/runs/a/{place}" in lines[0]
    assert not list((tmp_path / "runs").rglob(".*.tmp"))


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (OSError(errno.EFBIG, "x", "/a/b"), "ulimit -f"),
        (OSError(errno.EMFILE, "x", "/a/b"), "ulimit -n"),
        (BlockingIOError(errno.EAGAIN, "x"), "ulimit -u"),
        (OSError(errno.ENOMEM, "x"), "ulimit -v"),
        (MemoryError(), "ulimit -v"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "ulimit -v"),
        (ImportError("libx.so: failed to map segment from shared object"), "ulimit -v"),
    ],
    ids=str,
)
def test_an_error_names_its_limit(error: Exception, command: str) -> None:
    line = explain_limit(error)
    assert command in line
    assert "\n" not in line
    if getattr(error, "filename", None):
        assert error.filename in line


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "x"), RuntimeError("shapes"), ImportError("no x"), ValueError()]
)
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert explain_limit(error) is None


PROGRAM = """
import os, resource, psutil
from hpc_llm.distributed import available_bytes
first = available_bytes({})
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**30,) * 2)
left, cause = available_bytes({})
assert cause == "ulimit -v", cause
assert abs(left - 2**30) < 2**24, left
fewer, _ = available_bytes({}, threads=4)
assert left - fewer > 4 * 8 * 2**20
assert available_bytes({}, threads=1000) == (0, "ulimit -v")
"""


def test_the_address_space_counts() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_the_memory_of_a_job_counts() -> None:
    free, cause = available_bytes({"SLURM_MEM_PER_NODE": "0"})
    assert free is not None
    assert cause
    assert available_bytes({"SLURM_MEM_PER_NODE": "64"}) == (64 * MIB, "SLURM_MEM_PER_NODE")


def test_too_little_memory_for_the_vocabulary_is_refused_before_it_aborts(tmp_path: Path) -> None:
    program = """if True:
        import resource, sys, psutil
        from pathlib import Path
        from hpc_llm.config import compose, typed
        from hpc_llm.errors import UserError
        from hpc_llm.tokenizer.specials import SpecialTokens
        from hpc_llm.tokenizer.unigram import train_vocabulary
        cfg = typed(compose(["experiment=example", "tokenizer.vocab_size=512"]))
        import sentencepiece
        most = psutil.Process().memory_info().vms + 200 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        specials = SpecialTokens(unk="<unk>", bos="<s>", eos="</s>", pad=None, additional=())
        try:
            train_vocabulary(["a text"] * 99, [], cfg.tokenizer, specials, 1, Path(sys.argv[1]))
        except UserError as error:
            assert error.key == "tokenizer.max_characters", error
            assert "ulimit -v" in error.rule, error
            sys.exit(7)
    """
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 7, done.stderr


def test_a_native_abort_says_where(tmp_path: Path) -> None:
    """Native code that lacks memory aborts: no exception, and no launcher that would report it."""
    for folder in ("methods", "conf/method"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "methods/aborts.py").write_text("import os\nos.abort()\n")
    (tmp_path / "conf/method/aborts.yaml").write_text("method: aborts\n")
    words = ["plan", "experiment=example", "+method@stages.x=aborts"]
    done = subprocess.run(
        [sys.executable, "-m", "hpc_llm.app", *words],
        capture_output=True, text=True, check=False,
        env={**os.environ, "HPC_LLM_PLUGINS": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == -signal.SIGABRT
    assert "Aborted" in done.stderr
    assert str(tmp_path / "methods/aborts.py") in done.stderr
