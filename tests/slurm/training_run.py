"""A real training run on the two nodes, and the ways to strike it: for `test_survival.py`."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tiny import TINY
from wandb_file import payloads

from hpc_llm.rundir import read_starts
from hpc_llm.tracking import read_events

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "slurm" / "train.sbatch"
BEFORE = "corpus,train/pretrain,tokenizer,transplant,train/embeddings"
# Small enough to be quick, saved at every step
SETTINGS = [*TINY, "run=run", "checkpoint.minutes=1e-9", "stages.lora.max_epochs=100"]
SETTINGS += ["stages.lora.steps=40", "stages.embeddings.steps=4", "stages.pretrain.steps=4"]
STEPS = 40
STRIKE = 6  # the step behind which a fault comes
PATIENCE = 240.0  # seconds; the nodes share this machine's cores with other tests
HELD_BACK = 1 << signal.SIGUSR1 - 1  # its bit in /proc/PID/status


def wait_until(condition: Callable[[], Any], told: Callable[[], str], patience: float = PATIENCE):
    """Return the first true answer of `condition`."""
    deadline = time.monotonic() + patience
    while not (answer := condition()):
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)
    return answer


@dataclass
class TrainingRun:
    """Stage train/lora of the tiny example, as jobs of two nodes with one rank each."""

    cluster: Any
    folder: Path
    """The run folder; all before train/lora is done."""

    def submit(self, *options: str, overrides: tuple[str, ...] = ()) -> str:
        """Submit `slurm/train.sbatch`; return the job id."""
        words = [*SETTINGS, f"runs_dir={self.folder.parent}", *overrides]
        submit = ("sbatch", "--parsable", "-N2", "--ntasks-per-node=1", *options, str(SCRIPT))
        return self.cluster.output(*submit, *words, **self.prepared()).split()[0]

    def prepared(self) -> dict[str, str]:
        """Put hpc-llm in the place of the stub; return variables that its jobs need."""
        program = self.cluster.folder / "bin" / "hpc-llm"
        program.write_text(f'#!/bin/bash\nexec {sys.executable} -m hpc_llm.app "$@"\n')
        # What `make setup` has compiled; nodes without names meet at this machine's address
        variables = {"TORCH_EXTENSIONS_DIR": f"{sys.prefix}/torch_extensions"}
        if not self.cluster.named_nodes:
            variables["MASTER_ADDR"] = "127.0.0.1"
        return variables

    def wait_for_step(self, step: int) -> None:
        """Wait until the step is saved."""
        folder = self.folder / "train" / "lora" / "checkpoints"

        def saved() -> bool:
            return any(int(path.name[5:13]) >= step for path in folder.glob("step-*"))

        wait_until(saved, self.cluster.logs)

    def submit_and_wait(self, *options: str, overrides: tuple[str, ...] = ()) -> str:
        """Submit, and wait until it is in the middle of training."""
        job = self.submit(*options, overrides=overrides)
        self.wait_for_step(STRIKE)
        return job

    def rank(self, job: str, number: int) -> psutil.Process:
        """Return the process of a rank; of the newest start, if an earlier one is left."""

        def found() -> psutil.Process | None:
            of_rank = [p for p, env in tasks(job) if env.get("SLURM_PROCID") == str(number)]
            return max(of_rank, key=lambda p: p.create_time(), default=None)

        return wait_until(found, self.cluster.logs)

    def finish(self, job: str) -> int:
        """Wait until the job has completed; return how often it was started again."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        def ended() -> str:
            state = self.cluster.state(job)
            return state if state.startswith(over) else ""

        state = wait_until(ended, self.cluster.logs)
        assert state.startswith("COMPLETED"), f"{state}\n{self.cluster.logs()}"
        return int(state.split()[1])

    def asked(self) -> list[str | None]:
        """Which signals have asked the run to stop, in any of its starts."""
        return [start.asked for start in read_starts(self.folder / "starts.jsonl") if start.asked]

    def weights(self) -> str:
        """SHA-256 of what the stage has learned."""
        files = (self.folder / "train" / "lora").glob("**/*.safetensors")
        digest = hashlib.sha256()
        for path in sorted(files):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def steps(self) -> list[list[Any]]:
        """What `events.jsonl` has of each step: number, batch, chain, loss, norm, applied."""
        events = read_events(self.folder / "events.jsonl")
        trained = [e for e in events if e["event"] == "train" and e["stage"] == "lora"]
        return [step for event in trained for step in event["steps"]]

    def logged_steps(self) -> tuple[set[str], list[float]]:
        """Return the ids of the W&B runs, and the steps of their history, counted on over all."""
        from wandb.proto import wandb_internal_pb2

        ids, steps = set(), []
        # their folders are named by date and time
        for path in sorted(self.folder.glob("wandb/offline-run-*/*.wandb")):
            for payload in payloads(path):
                record = wandb_internal_pb2.Record()
                record.ParseFromString(payload)
                if record.HasField("run"):
                    ids.add(record.run.run_id)
                row = {(i.key or "/".join(i.nested_key)): i for i in record.history.item}
                if "train/loss" in row:
                    steps.append(json.loads(row["step_total"].value_json))
        return ids, steps

    def files(self) -> dict[str, tuple[int, str]]:
        """Everything in the run folder: time of its last change, and SHA-256."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            name = str(path.relative_to(self.folder))
            found[name] = (path.stat().st_mtime_ns, hashlib.sha256(content).hexdigest())
        return found


def new_run(base: Path, cluster: Any) -> TrainingRun:
    """Return a copy of a run folder, to be trained by jobs of `cluster`."""
    folder = cluster.folder / "runs" / "run"
    shutil.copytree(base, folder)
    return TrainingRun(cluster, folder)


def tasks(job: str) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Yield the ranks' processes of a job, with their environment."""
    for process in psutil.process_iter():
        try:
            words, environment = process.cmdline(), process.environ()
            mine = environment.get("SLURM_JOB_ID") == job and "hpc_llm.app" in words
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                yield process, environment
        except psutil.Error:
            continue


def is_asked(process: psutil.Process) -> bool:
    """Whether SIGUSR1 waits for a stopped process."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:  # it is over
        return False
    found = re.search(r"^ShdPnd:\s+(\w+)", status, re.MULTILINE)
    return bool(found and int(found[1], 16) & HELD_BACK)


def keepers(slurm_conf: Path, node: str) -> list[int]:
    """Return the pids of a node's slurmd and of its slurmstepds: they keep the node's log open."""
    log = str(slurm_conf.parent / "log" / f"slurmd.{node}.log")
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() in ("slurmd", "slurmstepd") and any(
                os.path.realpath(path) == os.path.realpath(log)
                for path in Path(f"/proc/{process.pid}/fd").iterdir()
            ):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return sorted(found)


def lose_power(slurm_conf: Path, node: str, job: str) -> None:
    """SIGKILL all that runs on a node: first those who would tell of it."""
    slurmd = int((slurm_conf.parent / "pid" / f"slurmd.{node}.pid").read_text())
    for pid in [slurmd, *keepers(slurm_conf, node)]:
        kill(pid)
    for process, environment in tasks(job):
        if environment.get("SLURMD_NODENAME") == node:
            kill(process.pid)


def kill(pid: int) -> None:
    """SIGKILL a process if it is there."""
    if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGKILL)


def mend(cluster: Any, *nodes: str) -> None:
    """Start the slurmd of nodes that lost it, and wait until Slurm may use the nodes again."""
    folder = cluster.slurm_conf.parent
    for node in nodes:
        pid = int((folder / "pid" / f"slurmd.{node}.pid").read_text())
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            subprocess.run([folder / "start_node.sh", node], env=cluster.environment, check=True)
        cluster.run("scontrol", "update", f"nodename={node}", "state=resume")  # or it is up

    def up() -> bool:
        states = cluster.output("sinfo", "-hN", "-pmain", f"-n{','.join(nodes)}", "-o%t").split()
        bad = [
            state for state in states if state.endswith("*") or state in ("down", "unk", "drain")
        ]
        return len(states) == len(nodes) and not bad

    wait_until(up, lambda: cluster.output("sinfo", "-N"))
