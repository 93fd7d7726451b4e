"""The table of verbs: help texts, and the function of each verb by name.

Modules are named, not imported, so that a verb loads only what it needs.
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
    """Its arguments on the command line."""

    @property
    def has_settings(self) -> bool:
        """Whether it accepts overrides."""
        return "KEY=VALUE" in self.takes


AGAIN = (
    "Run the same command again to resume: finished stages with unchanged settings and inputs are\n"
    "kept, an interrupted one resumes from its checkpoint. plan.only=true is a dry run."
)

VERBS: dict[str, Verb] = {
    "adapt": Verb(
        "run the whole recipe: corpus, tokenizer, transplant, training, correction, report",
        "hpc-llm adapt model.path=FOLDER corpus.target=FILES corpus.source=FILES run=NAME\n"
        "Without arguments: the embedded example. launch=slurm submits a chain of jobs.\n" + AGAIN,
        "recipe:run_recipe",
    ),
    "plan": Verb(
        "predict parameters, FLOPs, PF-days, memory, hours and money before a run",
        "hpc-llm plan model=solar-10.7b cluster=a100_4x8 hardware=a100_sxm_80gb "
        "plan.tokens=20_000_000_000\n"
        "-m plans every combination: hpc-llm plan -m model=llama-3.1-8b,qwen2.5-7b "
        "cluster.nodes=2,4 plan.format=csv",
        "plan:run_plan",
    ),
    "corpus": Verb("read, clean, deduplicate and split the text", AGAIN, "recipe:run_recipe"),
    "tokenizer": Verb(
        "train the new tokenizer and tokenize the training text", AGAIN, "recipe:run_recipe"
    ),
    "transplant": Verb("transplant the new vocabulary into the model", AGAIN, "recipe:run_recipe"),
    "train": Verb(
        "run the training stages of the recipe",
        AGAIN + "\nrerun.step=N reruns one training step and compares it with its record.",
        "recipe:run_recipe",
    ),
    "correct": Verb(
        "choose the merging factor phi on held-out text and merge the model",
        AGAIN,
        "recipe:run_recipe",
    ),
    "compose": Verb(
        "make a model of others, without training: an instruct model with an adapted vocabulary",
        "hpc-llm compose compose=lep compose.base=BASE compose.instruct=INSTRUCT "
        "compose.adapted=runs/NAME run=NAME\n"
        "compose=chat_vector adds the difference of INSTRUCT and BASE to the adapted model.\n"
        "With corpus.target and corpus.source INSTRUCT and the result are evaluated.\n" + AGAIN,
        "recipe:run_recipe",
    ),
    "evaluate": Verb(
        "evaluate the model after every stage: bits per byte, forgetting",
        AGAIN,
        "recipe:run_recipe",
    ),
    "report": Verb(
        "write the report page, summary.json and the model card", AGAIN, "recipe:run_recipe"
    ),
    "preflight": Verb(
        "check the nodes: devices, speed, memory, disks, clocks, network; report the bad ones",
        "srun hpc-llm preflight cluster=h100_4x8 hardware=h100_sxm run=NAME\n"
        "One rank per GPU; under a minute. Exit code 4: runs/NAME/preflight.exclude "
        "lists the nodes "
        "to exclude.",
        "preflight:run_preflight",
    ),
    "sweep": Verb(
        "show the trials of a sweep: table, best trial, plot",
        "hpc-llm adapt -m stages.lora.alpha=16,32 stages.lora.rank=8,16 run=NAME runs "
        "one, here or\n"
        "with launch=slurm as job arrays; hpc-llm sweep runs/NAME shows it at any time and plots\n"
        "runs/NAME/sweep.svg.",
        "sweep_table:run_sweep_table",
        takes="SWEEP_FOLDER",
    ),
    "table": Verb(
        "run the rows of a table, one run for each row and seed, and write it",
        "hpc-llm table table=lecture model.path=FOLDER corpus.target=FILES corpus.source=FILES\n"
        "A table is a YAML file in conf/table/. Runs share equal stages; the same command again\n"
        "continues, and only writes the table when all are finished. launch=slurm submits job\n"
        "arrays; hpc-llm table runs/NAME then writes table.json, .md, .html and .tex.",
        "table:run_table",
        takes="table=NAME [KEY=VALUE ...] | TABLE_FOLDER",
    ),
    "sbs": Verb(
        "compare answers of models side by side by people: blind pages, then their evaluation",
        "hpc-llm sbs sbs.models='{base: runs/A, ours: runs/B}' sbs.questions=questions.jsonl "
        "run=NAME\n"
        "Generates the answers and writes runs/NAME/sbs/annotators/01.html, ...: one page each,\n"
        "to be opened in a browser. The same command again continues.\n"
        "hpc-llm sbs sbs.collect='answers/*.json' run=NAME evaluates the answers: result.html.\n"
        "sbs.only_plan=true prints the smallest difference that a study can detect.",
        "sbs:run_sbs",
    ),
    "status": Verb(
        "monitor the jobs of a run: state, nodes, pending reason, progress, cost",
        "hpc-llm status runs/*: from Slurm, events.jsonl and ledger.jsonl; reports what "
        "Slurm or its "
        "accounting could not answer.",
        "status:run_status",
        takes="RUN_FOLDER ...",
    ),
    "cancel": Verb(
        "cancel the jobs of a run",
        "hpc-llm cancel runs/NAME: scancel of pending and running jobs; running ranks "
        "save a checkpoint first.\n"
        "NAME may be a sweep, or NAME/3 one trial of it.",
        "jobs:run_cancel",
        takes="RUN_FOLDER",
    ),
    "logs": Verb(
        "print the logs of a run's jobs",
        "hpc-llm logs runs/NAME prints them; -f follows until the jobs have ended.",
        "jobs:run_logs",
        takes="RUN_FOLDER [-f]",
    ),
    "ledger": Verb(
        "report what runs have spent",
        "hpc-llm ledger runs/*: FLOPs, PF-days, hours, money and energy; spent and useful. Other "
        "folders are skipped.",
        "ledger:run_ledger",
        takes="RUN_FOLDER ...",
    ),
    "cache": Verb(
        "list or clean the shared cache of finished stages",
        "hpc-llm cache runs lists the finished stages that runs of a folder share (cache=true).\n"
        "hpc-llm cache runs --keep 200G removes the least recently used ones down to 200 GiB;\n"
        "entries in use by a run are kept. --keep 0 removes all unused entries.",
        "cache:run_cache",
        takes="[RUNS_DIR] [--keep SIZE]",
    ),
    "verify": Verb(
        "check the files of finished runs by size and SHA-256, before publishing",
        "hpc-llm verify runs/NAME lists each damaged or missing file. Exit code 0: no problem, 1: "
        "a problem.\n"
        "To make damaged files again, run the command of the run again.",
        "verify:run_verify",
        takes="RUN_FOLDER ...",
    ),
    "diff": Verb(
        "compare two runs: where they diverge",
        "hpc-llm diff runs/A runs/B: settings, and the first step with another batch or loss.",
        "diff:run_diff",
        takes="RUN_FOLDER RUN_FOLDER",
    ),
    "env": Verb(
        "print versions and devices for a bug report", "hpc-llm env", "env:run_env", takes=""
    ),
}
