"""The verbs: one line of help and the work of each. Heavy rooms are imported when a verb runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc_llm.app.arguments import Arguments

__all__ = ["VERBS", "Verb"]


@dataclass(frozen=True)
class Verb:
    """A verb of the command line."""

    summary: str
    details: str
    work: "Callable[[Arguments], int]"
    takes: str = "[KEY=VALUE ...]"
    """What may follow it on the command line."""

    @property
    def has_settings(self) -> bool:
        """Whether it takes settings."""
        return "KEY=VALUE" in self.takes


def _recipe(arguments: "Arguments") -> int:
    from hpc_llm.app.recipe import run_recipe

    return run_recipe(arguments)


def _plan(arguments: "Arguments") -> int:
    from hpc_llm.app.plan import run_plan

    return run_plan(arguments)


def _preflight(arguments: "Arguments") -> int:
    from hpc_llm.app.preflight import run_preflight

    return run_preflight(arguments)


def _ledger(arguments: "Arguments") -> int:
    from hpc_llm.app.ledger import run_ledger

    return run_ledger(arguments)


def _diff(arguments: "Arguments") -> int:
    from hpc_llm.app.diff import run_diff

    return run_diff(arguments)


def _status(arguments: "Arguments") -> int:
    from hpc_llm.app.status import run_status

    return run_status(arguments)


def _sweep(arguments: "Arguments") -> int:
    from hpc_llm.app.sweep_table import run_sweep_table

    return run_sweep_table(arguments)


def _cancel(arguments: "Arguments") -> int:
    from hpc_llm.app.jobs import run_cancel

    return run_cancel(arguments)


def _logs(arguments: "Arguments") -> int:
    from hpc_llm.app.jobs import run_logs

    return run_logs(arguments)


def _env(arguments: "Arguments") -> int:
    from hpc_llm.app.env import run_env

    return run_env(arguments)


AGAIN = "A stage whose settings and inputs are unchanged is not run again."

VERBS: dict[str, Verb] = {
    "adapt": Verb(
        "the whole recipe: corpus, tokenizer, transplant, training, correction, report",
        "hpc-llm adapt model.path=FOLDER corpus.target=FILES corpus.source=FILES run=NAME\n"
        "Without arguments: the embedded example, start to finish.\n" + AGAIN,
        _recipe,
    ),
    "plan": Verb(
        "before spending: parameters, FLOPs, PF-days, hours and money",
        "hpc-llm plan model=solar-10.7b cluster=a100_4x8 hardware=a100_sxm_80gb "
        "plan.tokens=20_000_000_000\n"
        "-m plans every combination: hpc-llm plan -m model=llama-3.1-8b,qwen2.5-7b "
        "cluster.nodes=2,4 plan.format=csv",
        _plan,
    ),
    "corpus": Verb("read, clean, deduplicate and split the text", AGAIN, _recipe),
    "tokenizer": Verb("a new vocabulary, and the text in its tokens", AGAIN, _recipe),
    "transplant": Verb("the model takes the new vocabulary", AGAIN, _recipe),
    "train": Verb(
        "the training stages of the recipe",
        AGAIN + "\nreplay.step=N does one step again and compares it with what it was.",
        _recipe,
    ),
    "correct": Verb("the merging factor on held-out text, and the merged model", AGAIN, _recipe),
    "evaluate": Verb("bits per byte after every stage", AGAIN, _recipe),
    "report": Verb("the page, the summary and the model card", AGAIN, _recipe),
    "preflight": Verb(
        "try the nodes out: devices, speed, memory, disks, clocks, network; names the bad ones",
        "srun hpc-llm preflight cluster=h100_4x8 hardware=h100_sxm run=NAME\n"
        "One rank for each GPU; under a minute. Exit code 4: runs/NAME/preflight.exclude names the "
        "nodes to leave out.",
        _preflight,
    ),
    "sweep": Verb(
        "what became of the trials of a sweep: a table, the best one, a picture",
        "hpc-llm adapt -m train.lora.alpha=16,32 train.lora.rank=8,16 run=NAME makes one, here or "
        "with\nlaunch=slurm as arrays of jobs; hpc-llm sweep runs/NAME tells of it at any time, "
        "and draws\nruns/NAME/sweep.svg.",
        _sweep,
        takes="SWEEP_FOLDER",
    ),
    "status": Verb(
        "the jobs of a run: state, where, why they wait, progress, money",
        "hpc-llm status runs/*: what Slurm, events.jsonl and ledger.jsonl say; without Slurm or "
        "its accounting also what could not be asked.",
        _status,
        takes="RUN_FOLDER ...",
    ),
    "cancel": Verb(
        "ends the jobs of a run",
        "hpc-llm cancel runs/NAME: scancel of all that waits or runs; ranks that run save first.\n"
        "NAME may be a sweep, or NAME/3 one trial of it.",
        _cancel,
        takes="RUN_FOLDER",
    ),
    "logs": Verb(
        "the logs of a run's jobs",
        "hpc-llm logs runs/NAME prints them; -f goes on until the jobs have ended.",
        _logs,
        takes="RUN_FOLDER [-f]",
    ),
    "ledger": Verb(
        "what runs have spent",
        "hpc-llm ledger runs/*: FLOPs, PF-days, hours, money and energy; spent and useful. What is "
        "no run folder is passed over.",
        _ledger,
        takes="RUN_FOLDER ...",
    ),
    "diff": Verb(
        "where two runs part",
        "hpc-llm diff runs/A runs/B: settings, and the first step with another batch or loss.",
        _diff,
        takes="RUN_FOLDER RUN_FOLDER",
    ),
    "env": Verb("versions and devices, for a bug report", "hpc-llm env", _env, takes=""),
}
