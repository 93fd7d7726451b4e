"""The job script of `launch=slurm`: what `sbatch` gets, with nothing left to a shell to guess.

It does what `slurm/adapt.sbatch` does, for a configuration that is known: one task for each GPU,
a signal to save before the time limit, a bounded number of restarts.
"""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings import RunConfig
from hpc_llm.settings.launch import SIGNAL_SECONDS

__all__ = ["job_script", "ranks_per_node"]

TEMPLATE = Path(__file__).with_name("job.sbatch.j2")
SITE_OPTIONS = (
    "partition",
    "account",
    "qos",
    "reservation",
    "time",
    "mem",
    "constraint",
    "exclude",
)


def job_script(cfg: RunConfig, verb: str, config_path: Path) -> str:
    """Return the script that runs `verb` on the resolved configuration at `config_path`.

    Log and compiled extensions go to the folder of `config_path`. The job works in the folder
    where this is called: relative paths of the configuration mean the same there.
    Raises `UserError` for values with a line break, the path of the run folder included.
    """
    from jinja2 import Environment, StrictUndefined

    config = config_path.absolute()
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    options = _options(cfg, verb, config.parent)
    script: str = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=f"{verb} of {config.parent.name}",
        verb=verb,
        options=[_directive(key, value) for key, value in options.items()],
        programs=shlex.quote(str(Path(sys.executable).parent)),
        cores="cpus-per-task" in options,
        folder=shlex.quote(str(config.parent)),
        config=shlex.quote(str(config)),
        most=cfg.launch.max_requeues,
    )
    return script + "\n"


def ranks_per_node(cfg: RunConfig) -> int:
    """Return the ranks that a job has on each node: one for each GPU; a CPU's device is a core."""
    return cfg.launch.processes if cfg.hardware.kind == "cpu" else cfg.cluster.devices_per_node


def _options(cfg: RunConfig, verb: str, folder: Path) -> dict[str, Any]:
    """Return the options of sbatch by their long names; those of `launch.options` come last."""
    launch, cluster = cfg.launch, cfg.cluster
    tasks, cores = ranks_per_node(cfg), launch.cpus_per_task
    if cfg.hardware.kind == "cpu":
        cores = cores or max(1, cluster.devices_per_node // tasks)
    options: dict[str, Any] = {
        "job-name": f"{verb}-{folder.name}",
        "output": str(folder).replace("%", "%%") + "/slurm-%j.out",
        "chdir": Path.cwd(),
        "open-mode": "append",  # a restart would else wipe out what was said before
        "nodes": cluster.nodes,
        "ntasks-per-node": tasks,
        "gpus-per-node": tasks if cfg.hardware.kind == "gpu" else None,
        "cpus-per-task": cores,
        "requeue": True,  # after a node failure or a preemption
        "signal": f"USR1@{SIGNAL_SECONDS}",  # to the ranks, not to the shell: no B:
    }
    options |= {key: getattr(launch, key) for key in SITE_OPTIONS}
    options |= {key.replace("_", "-"): value for key, value in launch.options.items()}
    return {k: value for k, value in options.items() if value is not None and value is not False}


def _directive(key: str, value: Any) -> str:
    """Return one option as sbatch reads it from a script.

    Its quotes are not those of a shell: a backslash takes the next letter as it is inside them too.
    """
    if value is True:
        return f"--{key}"
    text = str(value)
    if "\n" in text:
        raise UserError(f"sbatch --{key}={text!r}: must be one line; take the line break out")
    if re.search(r"""[\s'"\\#]""", text):
        text = "'" + re.sub(r"(['\\])", r"\\\1", text) + "'"
    return f"--{key}={text}"
