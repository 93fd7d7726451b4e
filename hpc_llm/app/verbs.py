"""The table of verbs: help texts, and the function of each by its name.

The table names modules and does not import them, so that a verb loads only what it needs.
"""

from dataclasses import dataclass

__all__ = ["VERBS", "Verb"]


@dataclass(frozen=True)
class Verb:
    """A verb of the command line."""

    summary: str
    details: str
    work: str
    """module:function of `hpc_llm.app`; takes `Arguments`, returns the exit code."""
    takes: str = "[KEY=VALUE ...]"
    """What may follow it on the command line."""

    @property
    def has_settings(self) -> bool:
        """Whether it takes settings."""
        return "KEY=VALUE" in self.takes


AGAIN = "A stage whose settings and inputs are unchanged is not run again."

VERBS: dict[str, Verb] = {
    "adapt": Verb(
        "the whole recipe: corpus, tokenizer, transplant, training, correction, report",
        "hpc-llm adapt model.path=FOLDER corpus.target=FILES corpus.source=FILES run=NAME\n"
        "Without arguments: the embedded example, start to finish.\n" + AGAIN,
        "recipe:run_recipe",
    ),
    "plan": Verb(
        "before spending: parameters, FLOPs, PF-days, hours and money",
        "hpc-llm plan model=solar-10.7b cluster=a100_4x8 hardware=a100_sxm_80gb "
        "plan.tokens=20_000_000_000\n"
        "-m plans every combination: hpc-llm plan -m model=llama-3.1-8b,qwen2.5-7b "
        "cluster.nodes=2,4 plan.format=csv",
        "plan:run_plan",
    ),
    "corpus": Verb("read, clean, deduplicate and split the text", AGAIN, "recipe:run_recipe"),
    "tokenizer": Verb("a new vocabulary, and the text in its tokens", AGAIN, "recipe:run_recipe"),
    "transplant": Verb("the model takes the new vocabulary", AGAIN, "recipe:run_recipe"),
    "train": Verb(
        "the training stages of the recipe",
        AGAIN + "\nrerun.step=N repeats one step and compares it with its record.",
        "recipe:run_recipe",
    ),
    "correct": Verb(
        "the merging factor on held-out text, and the merged model", AGAIN, "recipe:run_recipe"
    ),
    "evaluate": Verb("bits per byte after every stage", AGAIN, "recipe:run_recipe"),
    "report": Verb("the page, the summary and the model card", AGAIN, "recipe:run_recipe"),
    "preflight": Verb(
        "try the nodes out: devices, speed, memory, disks, clocks, network; names the bad ones",
        "srun hpc-llm preflight cluster=h100_4x8 hardware=h100_sxm run=NAME\n"
        "One rank for each GPU; under a minute. Exit code 4: runs/NAME/preflight.exclude names the "
        "nodes to leave out.",
        "preflight:run_preflight",
    ),
    "sweep": Verb(
        "what became of the trials of a sweep: a table, the best one, a picture",
        "hpc-llm adapt -m stages.lora.alpha=16,32 stages.lora.rank=8,16 run=NAME makes one, here\n"
        "or with launch=slurm as arrays of jobs; hpc-llm sweep runs/NAME shows it at any time, "
        "and draws\nruns/NAME/sweep.svg.",
        "sweep_table:run_sweep_table",
        takes="SWEEP_FOLDER",
    ),
    "status": Verb(
        "the jobs of a run: state, where, why they wait, progress, money",
        "hpc-llm status runs/*: what Slurm, events.jsonl and ledger.jsonl say; without Slurm or "
        "its accounting also what could not be asked.",
        "status:run_status",
        takes="RUN_FOLDER ...",
    ),
    "cancel": Verb(
        "ends the jobs of a run",
        "hpc-llm cancel runs/NAME: scancel of all that waits or runs; ranks that run save first.\n"
        "NAME may be a sweep, or NAME/3 one trial of it.",
        "jobs:run_cancel",
        takes="RUN_FOLDER",
    ),
    "logs": Verb(
        "the logs of a run's jobs",
        "hpc-llm logs runs/NAME prints them; -f goes on until the jobs have ended.",
        "jobs:run_logs",
        takes="RUN_FOLDER [-f]",
    ),
    "ledger": Verb(
        "what runs have spent",
        "hpc-llm ledger runs/*: FLOPs, PF-days, hours, money and energy; spent and useful. What is "
        "not a run folder is skipped.",
        "ledger:run_ledger",
        takes="RUN_FOLDER ...",
    ),
    "cache": Verb(
        "stages that runs share: size and cleaning",
        "hpc-llm cache runs lists the finished stages that runs of a folder share (cache=true).\n"
        "hpc-llm cache runs --keep 200G removes the ones unused for longest until 200 GiB are "
        "left;\nnone that a run holds. --keep 0 removes all that no run holds.",
        "cache:run_cache",
        takes="[RUNS_DIR] [--keep SIZE]",
    ),
    "diff": Verb(
        "where two runs part",
        "hpc-llm diff runs/A runs/B: settings, and the first step with another batch or loss.",
        "diff:run_diff",
        takes="RUN_FOLDER RUN_FOLDER",
    ),
    "env": Verb("versions and devices, for a bug report", "hpc-llm env", "env:run_env", takes=""),
}
