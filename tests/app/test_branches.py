"""One stable stage and two decay branches from its middle, killed on the way: the same bits."""

import hashlib
import subprocess
import sys
import time

import pytest
from tiny import TINY, hpc_llm, records, summary

STABLE, MIDDLE = 10, 6
BRANCHES = ("decay_a", "decay_b")
WORDS = [
    "adapt", *(word for word in TINY if "stages.lora" not in word), "~stages.lora", "tracking=off",
    "checkpoint.minutes=1e-9", "+method@stages.stable=lora", f"stages.stable.steps={STABLE}",
    "stages.stable.learning_rate=0.003", "stages.stable.schedule.name=constant",
]  # fmt: skip
for number, name in enumerate(BRANCHES):
    WORDS += [
        f"+method@stages.{name}=lora", f"stages.{name}.from=stable@{MIDDLE}",
        f"stages.{name}.steps=5", f"stages.{name}.learning_rate=0.00{number + 2}",
        f"+stages.{name}.schedule={{name: linear, warmup_fraction: 0.0, final_fraction: 0.0}}",
    ]  # fmt: skip
KILLS = ("train/stable", "train/decay_a", "train/decay_b", "train/decay_b")


def bits(folder):
    """Return the SHA-256 of what each stage trained, and of the model."""
    names = [*(f"train/{name}" for name in ("stable", *BRANCHES)), "model"]
    found = {}
    for name in names:
        digest = hashlib.sha256()
        for path in sorted((folder / name).rglob("*.safetensors")):
            digest.update(path.name.encode() + path.read_bytes())
        found[name] = digest.hexdigest()
    return found


def killed_in(words, folder, stage, after):
    """Run until `stage` has a checkpoint above `after` steps, then SIGKILL; return the step."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hpc_llm.app", *words], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while True:
        saved = [int(p.name[5:13]) for p in (folder / stage / "checkpoints").glob("step-*")]
        if max(saved, default=0) > after:
            break
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    return max(saved)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    hpc_llm(*WORDS, f"runs_dir={runs}", "run=whole")
    return runs / "whole"


def test_branches_share_their_stage_and_differ(whole):
    assert records(whole).count("train/stable") == 1
    found = bits(whole)
    assert len(set(found.values())) == len(found)
    points = summary(whole)["measures"]["bpb/target"]
    assert {"stable", *BRANCHES, "corrected"} <= set(points)


def test_killed_on_the_way_they_end_with_the_same_bits(whole):
    words = [*WORDS, f"runs_dir={whole.parent}", "run=killed"]
    folder = whole.parent / "killed"
    for number, stage in enumerate(KILLS):
        killed_in(words, folder, stage, 2 * (number == 3))
    hpc_llm(*words)
    assert bits(folder) == bits(whole)
