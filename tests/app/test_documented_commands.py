"""The commands of the documentation compose, and the one for a cluster trains what it says."""

import json
import re
import shlex
from pathlib import Path

import pytest

from hpc_llm import config
from hpc_llm.app.arguments import parse
from hpc_llm.app.main import main
from hpc_llm.app.table_trials import compose_table, table_of
from hpc_llm.app.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "slurm/README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = sorted((ROOT / "slurm").glob("*.sbatch"))
FENCE = re.compile(r"^```(?:bash|sh|yaml)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# what a reader puts there, and files and choices of the reader's own
PLACEHOLDERS = {
    "model=NAME": "model=llama-3.1-8b",
    "hardware=NAME": "hardware=h100_sxm",
    "cluster=NAME": "cluster=h100_4x8",
    "tokenizer.vocab_size=VOCAB": "tokenizer.vocab_size=32_000",
    "rerun.step=N": "rerun.step=7",
    "...": None,
}
OWN = re.compile(r"ia3|mine|capitals|=last|experiment=(?!example)|=METHOD")


def commands(path: Path) -> list[list[str]]:
    """Return the words of each command of a page or in the header of a script."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".sbatch":
        blocks = ["\n".join(line.lstrip("# ") for line in text.splitlines() if line[:1] == "#")]
    else:
        blocks = FENCE.findall(text)
    lines = [
        re.sub(r"^[#$] +", "", line)
        for block in blocks
        for line in block.replace("\\\n", " ").splitlines()
    ]
    if path.suffix == ".sbatch":
        lines = [line for line in lines if line.startswith("sbatch")]  # the rest is prose
    told = (
        shlex.split(line, comments=True) for line in lines if re.search("hpc-llm|sbatch ", line)
    )
    return [words for words in told if words and of_verb(words) is not None]


def of_verb(words: list[str]) -> list[str] | None:
    """Return the verb and its arguments in a command; None if it is no command of ours."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words or words[0] not in ("hpc-llm", "sbatch", "srun", "mpirun"):
        return None
    for place, word in enumerate(words):
        if word == "hpc-llm" and words[place + 1 :]:
            return words[place + 1 :]
        if word.startswith("slurm/") and word.endswith(".sbatch"):
            return [Path(word).stem, *words[place + 1 :]]
    return None


COMMANDS = [
    pytest.param(words, id=f"{path.stem}-{' '.join(words)[:80]}")
    for path in (*PAGES, *SCRIPTS)
    for words in commands(path)
    if not OWN.search(" ".join(words))
]


def test_commands_are_found():
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("words", COMMANDS)
def test_a_documented_command_composes(words):
    if {"transplant.donor.kind=fasttext", "transplant.donor.kind=word2vec"} & set(words):
        pytest.importorskip("gensim", reason="needs the extra donors")
    verb, *rest = of_verb(words)
    told = [PLACEHOLDERS.get(word, word) for word in rest]
    told = [word for word in told if word is not None and not re.fullmatch("[A-Z]+", word)]
    arguments = parse([verb, *told])
    if not VERBS[verb].has_settings or arguments.help:
        return
    if verb == "table":
        assert compose_table(*table_of(arguments.overrides))
        return
    example = verb in ("adapt", "plan", "preflight")
    trials = [arguments.overrides]
    if arguments.multirun:
        trials = config.combinations(arguments.overrides)
    allocated = {}
    if "sbatch" in words and any(word.startswith("--gpus") for word in words):
        allocated = {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_NUM_NODES": "4"}
    for overrides in trials:
        cfg = config.typed(config.compose(overrides, example=example))
        if verb in ("adapt", "train") and cfg.rerun.step is None:
            config.refuse_laptop_defaults(overrides, cfg, allocated)


CLUSTER = [
    pytest.param(words, id=f"{path.parent.name}-{path.stem}-{number}")
    for path in (ROOT / "README.md", ROOT / "slurm/README.md", ROOT / "slurm/adapt.sbatch")
    for number, words in enumerate(commands(path))
    if "cluster=a100_4x8" in words and "model=solar-10.7b" in words and "..." not in words
]


@pytest.mark.parametrize("words", CLUSTER)
def test_the_cluster_command_trains_on_the_tokens_of_a_cluster(capsys, words):
    assert len(CLUSTER) >= 3
    verb, *overrides = of_verb(words)
    assert verb in ("adapt", "plan")
    overrides = [word for word in overrides if not word.startswith(("launch", "plan."))]
    assert main(["plan", *overrides, "plan.format=json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert sum(row["tokens"] for row in plan["rows"]) == 19_000 * 2**20  # 19.9e9
    cfg = config.typed(config.compose(overrides))
    assert (cfg.train.sequence_length, cfg.checkpoint.minutes) == (4096, 30)
