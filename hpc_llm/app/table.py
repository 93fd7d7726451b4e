"""`hpc-llm table table=NAME ...`: many runs, one table.

A table is a YAML file in `conf/table/`: rows and seeds. Its runs are trials of a sweep, so
`hpc-llm sweep`, `status`, `logs` and `cancel` know its folder. They share equal stages through the
cache, and finished ones are kept: a second call only writes the table.
"""

import os
import shlex
from pathlib import Path

from hpc_llm.app.arguments import Arguments, refuse_flags, refuse_ranks
from hpc_llm.app.run_folders import is_to_be_submitted, open_folder
from hpc_llm.app.sweep import STOPPED, plan_only, run_here
from hpc_llm.app.table_trials import (
    compose_table,
    refuse_other_documents,
    table_of,
    with_trials,
)
from hpc_llm.app.trials import plan_trials
from hpc_llm.distributed import detect_ranks, say, set_up_console
from hpc_llm.rundir import SweepFolder, refuse_foreign, write_json

__all__ = ["run_table"]

VERB = "adapt"  # of its trials
FLAGS = ("-m", "--stages", "--config", "--cfg")  # of other verbs


def run_table(arguments: Arguments) -> int:
    """Run or submit the runs of a table that are not finished, and write the table.

    Return the exit code of the first run that failed.
    """
    ranks = detect_ranks(os.environ)
    set_up_console(ranks)
    rule = "a table has one configuration for each run, and runs what its rows need"
    refuse_flags(arguments, FLAGS, rule, "remove it, or use hpc-llm adapt {flag}")
    refuse_ranks("table", ranks, "run it on one, or on the login node with launch=slurm")
    words = arguments.overrides
    if len(words) == 1 and "=" not in words[0]:
        _write(SweepFolder(Path(words[0])))
        return 0
    table, others = table_of(words)
    folder, sweep, planned = plan_trials(compose_table(table, others), VERB)
    refuse_other_documents(planned)
    if planned[0].cfg.plan.only:
        return plan_only(folder, sweep, planned)
    refuse_foreign(folder.path)
    due = [one for one in planned if one.due]
    code = 0
    for one in due:
        open_folder(one.cfg, ranks)
    folder.write(sweep)
    write_json(folder.rows, with_trials(table, planned))
    if due and is_to_be_submitted(planned[0].cfg, ranks, from_file=False):
        from hpc_llm.app.submit_sweep import submit_sweep

        submit_sweep(folder, sweep, due, whole=False)
        say(f"hpc-llm table {shlex.quote(str(folder.path))} writes the table")
        return 0
    say(f"{folder.path}: {len(due)} of {len(planned)} runs to do")
    code = run_here(folder, sweep, due)
    if code not in STOPPED:
        _write(folder)
    return code


def _write(folder: SweepFolder) -> None:
    """Write and print the table of a folder, from the runs that are finished."""
    from hpc_llm.report.run_table import print_table, write_table
    from hpc_llm.stages.table import collect

    results = collect(folder)
    write_table(results, folder.path)
    print_table(results)
    print(f"\n  table {folder.path / 'table.html'} (.md, .tex, .json)")
