"""`hpc-llm preflight`: test the nodes before a long job."""

import os
import time
from dataclasses import asdict
from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.app.run_folders import charge_time, open_folder
from hpc_llm.distributed import Ranks, detect_ranks, join_network, set_up_console, visible
from hpc_llm.errors import UserError
from hpc_llm.rundir import RunFolder, refuse_foreign, write_text
from hpc_llm.settings import RunConfig

__all__ = ["run_preflight"]

# A second file for the list of bad nodes: a batch script does not know the run folder
EXCLUDE_VARIABLE = "HPC_LLM_EXCLUDE_FILE"


def run_preflight(arguments: Arguments) -> int:
    """Measure the nodes of these ranks, print the table and return the exit code.

    Ranks above 0 return 0, so the exit code of srun is that of rank 0.
    """
    from hpc_llm import config

    ranks = detect_ranks(os.environ)
    set_up_console(ranks)
    if arguments.config:
        cfg = config.load(Path(arguments.config))
    else:
        composed = config.compose(arguments.overrides, example=True)
        if arguments.show_config:
            print(config.as_yaml(composed), end="")
            return 0
        cfg = config.typed(composed)
    ranks = join_network(ranks, cfg.cluster.address_suffix, cfg.cluster.environment, os.environ)
    if cfg.launch.name == "slurm" and ranks.launcher == "none" and ranks.job_id is None:
        raise UserError(
            "launch",
            "slurm",
            "not available for preflight",
            "submit slurm/preflight.sbatch with the same settings",
        )
    if cfg.launch.processes > 1 and ranks.launcher == "none":
        from hpc_llm.launch import run_ranks

        words = ["--config", arguments.config] if arguments.config else arguments.overrides
        return run_ranks(["preflight", *words], cfg.launch.processes, os.environ)
    folder = RunFolder(cfg.folder)
    refuse_foreign(folder.path)
    if not folder.config.exists():  # never overwrite the configuration of a run
        folder = open_folder(cfg, ranks)
    return _examine(cfg, ranks, folder)


def _examine(cfg: RunConfig, ranks: Ranks, folder: RunFolder) -> int:
    from hpc_llm.preflight import write_report
    from hpc_llm.preflight.examine import examine

    report = examine(cfg, ranks, os.environ)
    if report is None:
        return 0
    facts = {
        "time": time.time(),
        "job": ranks.job_id,
        "restart": ranks.restart_count,
        "settings": asdict(cfg.preflight),
    }
    write_report(report, folder.path, facts)
    if os.environ.get(EXCLUDE_VARIABLE) and report.exclude:
        write_text(Path(os.environ[EXCLUDE_VARIABLE]), ",".join(report.exclude) + "\n")
    charge_time(cfg, ranks, folder, "preflight")
    print(visible(report.text), end="", flush=True)
    return report.code
