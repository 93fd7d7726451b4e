"""`hpc-llm adapt -m KEY=A,B ...`: one run per combination, in the folder of the sweep.

Hydra's basic sweeper expands the combinations; each trial has its own run folder,
`runs/<sweep>/<number>`. All are composed and validated before the first starts. Locally they run
one after another, with launch=slurm as job arrays; a failed trial does not stop the others.
"""

import os
import shlex
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.app.run_folders import is_to_be_submitted, open_folder
from hpc_llm.app.trials import PlannedTrial, plan_sweep
from hpc_llm.distributed import STOP_SIGNALS, Ranks, say
from hpc_llm.errors import EXIT_REQUEUE, UserError
from hpc_llm.launch import run_ranks
from hpc_llm.rundir import Sweep, SweepFolder, append_line, refuse_foreign

__all__ = ["plan_only", "run_here", "run_sweep"]

# Exit codes of a trial that end the sweep: stopped on request, or interrupted
STOPPED = (
    EXIT_REQUEUE,
    *(128 + number for number in (signal.SIGINT, *STOP_SIGNALS)),
)


def run_sweep(arguments: Arguments, ranks: Ranks) -> int:
    """Run or submit every combination of the comma-separated values.

    A local sweep returns the exit code of the first failed trial.
    """
    if ranks.world_size > 1:
        raise UserError(
            "-m",
            None,
            f"started on {ranks.world_size} ranks: a failed trial would keep its other ranks "
            "waiting",
            "run it on the login node with launch=slurm, or on a single rank",
        )
    if arguments.show_config:
        return _show(arguments)
    folder, sweep, planned = plan_sweep(arguments)
    cfg = planned[0].cfg
    if cfg.plan.only:
        return plan_only(folder, sweep, planned)
    refuse_foreign(folder.path)
    if is_to_be_submitted(cfg, ranks, from_file=False):
        from hpc_llm.app.submit_sweep import submit_sweep

        return submit_sweep(folder, sweep, planned, whole=arguments.stages is None)
    for one in planned:
        open_folder(one.cfg, ranks)
    folder.write(sweep)
    code = run_here(folder, sweep, planned)
    if code not in STOPPED:
        say(f"hpc-llm sweep {shlex.quote(str(folder.path))} prints the table and draws the plot")
    return code


def _show(arguments: Arguments) -> int:
    from hpc_llm import config

    for number, overrides in enumerate(config.combinations(arguments.overrides)):
        composed = config.compose(overrides, example=arguments.verb == "adapt")
        print(f"# trial {number}: {' '.join(overrides)}\n{config.as_yaml(composed)}")
    return 0


def plan_only(folder: SweepFolder, sweep: Sweep, planned: Sequence[PlannedTrial]) -> int:
    """Print the plan of each trial, and the scripts of the arrays; write nothing."""
    from hpc_llm.app.plan import print_plan_of_sweep

    names = {one.trial.number: f"trial {one.trial.number}: {one.trial.words}" for one in planned}
    arrays: dict[str, list[tuple[Path, str]]] = {}
    if planned[0].cfg.launch.name == "slurm":
        from hpc_llm.app.submit_sweep import arrays_of

        whole = planned[0].names is None
        for scripts, _, trials in arrays_of(folder, sweep, planned, whole=whole):
            arrays |= {names[one.trial.number]: scripts for one in trials}
    return print_plan_of_sweep({names[one.trial.number]: one.cfg for one in planned}, arrays)


def run_here(folder: SweepFolder, sweep: Sweep, planned: Sequence[PlannedTrial]) -> int:
    """Run the trials one after another, each in separate processes.

    Return the exit code of the first that failed, or of one that was stopped, which ends the sweep.
    """
    first_failure = 0
    for one in planned:
        say(f"trial {one.trial.number}: {one.trial.words} -> {one.folder.path}")
        words = [sweep.verb, "--config", str(one.folder.config)]
        words += ["--stages", ",".join(one.names)] if one.names else []
        begun = {"begun": _now(), "process": os.getpid(), "host": os.uname().nodename}
        append_line(folder.local, {"trial": one.trial.number, **begun})
        processes = one.cfg.launch.processes if one.cfg.launch.name == "local" else 1
        code = run_ranks(words, processes, os.environ)
        ended = {"ended": _now(), "verb": sweep.verb, "code": code}
        append_line(folder.local, {"trial": one.trial.number, **ended})
        if code:
            say(f"trial {one.trial.number}: exit code {code}")
        first_failure = first_failure or code
        if code in STOPPED:
            return code
    return first_failure


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
