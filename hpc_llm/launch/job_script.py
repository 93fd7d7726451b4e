"""The job script of `launch=slurm`, with every option resolved before submission.

Like `slurm/adapt.sbatch`, but for a resolved configuration: one task per GPU, a signal to save
before the time limit, a bounded number of restarts.

The script can be resubmitted with plain `sbatch`; submitit submits it (executor.py).
"""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.launch.options import sbatch_options
from hpc_llm.launch.parts import Part
from hpc_llm.settings import RunConfig

__all__ = ["expand_output", "job_name", "job_script", "log_path", "words_of"]

TEMPLATE = Path(__file__).with_name("job.sbatch.j2")
LOG, ARRAY_LOG = "/slurm-%j.out", "/%a/slurm-%A_%a.out"
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
GPU_OPTIONS = re.compile(r"gpus?|gpus?-per-.*|gres|tres-per-task")


def job_script(
    cfg: RunConfig,
    verb: str,
    config_path: Path,
    part: Part | None = None,
    tasks: Sequence[int] = (),
) -> str:
    """Return the script that runs `verb` on the resolved configuration at `config_path`.

    `part`: only its stages, with its nodes. `tasks`: a job array with these task ids, of which at
    most `launch.throttle` run at once; each reads its configuration from the subfolder named by its
    id, beside `config_path`. Logs and compiled extensions go to the folder of the configuration.
    The job runs in the current working directory, so relative paths in the configuration stay
    valid. Raises `UserError` for values with a line break or another control character, including
    the path of the run folder.
    """
    from jinja2 import Environment, StrictUndefined

    config = config_path.absolute()
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    own = sbatch_options(cfg) if part is None else part.options
    options: dict[str, Any] = {
        "job-name": job_name(verb, config.parent, part),
        "output": str(config.parent).replace("%", "%%") + (ARRAY_LOG if tasks else LOG),
        "chdir": Path.cwd(),
        **({"array": _numbers(tasks, cfg.launch.throttle)} if tasks else {}),
        **own,
    }
    script: str = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=job_name(verb, config.parent, part),
        verb=verb,
        words=shlex.join(words_of(verb, part)),
        options=[_directive(key, value) for key, value in options.items()],
        programs=shlex.quote(str(Path(sys.executable).parent)),
        cores="cpus-per-task" in options,
        hide_gpus=cfg.hardware.kind == "gpu" and not any(map(GPU_OPTIONS.fullmatch, own)),
        folder=shlex.quote(str(config.parent)),
        config=f'"$folder"/{config.name}' if tasks else shlex.quote(str(config)),
        array=bool(tasks),
        snapshot=cfg.launch.snapshot,
        preflight=cfg.launch.preflight and (part is None or part.all_nodes),
        most=cfg.launch.max_requeues,
    )
    return script + "\n"


def words_of(verb: str, part: Part | None = None) -> list[str]:
    """Return the arguments of `hpc-llm` in a job, without the configuration."""
    return [verb] if part is None or part.whole else [verb, "--stages", ",".join(part.stages)]


def job_name(verb: str, folder: Path, part: Part | None = None) -> str:
    """Return the name of a job in the queue."""
    return f"{verb if part is None or part.whole else part.name}-{folder.name}"


def log_path(cfg: RunConfig, folder: Path, job: str) -> Path:
    """Return the log path of a job, or of an array task (`7_0`).

    In `launch.options.output` only %j, and for a task %A and %a, are expanded.
    """
    named = cfg.launch.options.get("output")
    if named is None:
        return folder.absolute() / f"slurm-{job}.out"
    array, _, task = job.partition("_")
    return Path.cwd() / expand_output(str(named), array, task)


def expand_output(text: str, job: str, task: str = "") -> str:
    """Expand %j, and for a task of the array `job` %A and %a, in an option `output`."""
    known = {"%A": job, "%a": task} if task else {"%j": job}
    return re.sub("%[Aaj]", lambda found: known.get(found[0], found[0]), text)


def _numbers(tasks: Sequence[int], throttle: int | None) -> str:
    """Return task ids in sbatch's notation, with ranges: 0-2,7%2."""
    runs: list[list[int]] = []
    for task in sorted(tasks):
        if runs and task == runs[-1][-1] + 1:
            runs[-1].append(task)
        else:
            runs.append([task])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ",".join(texts) + ("" if throttle is None else f"%{throttle}")


def _directive(key: str, value: Any) -> str:
    """Return an option in the form in which sbatch reads it from a script.

    sbatch does not quote like a shell: a backslash escapes the next character inside quotes too.
    """
    if value is True:
        return f"--{key}"
    text = str(value)
    if CONTROL.search(text):
        raise UserError(
            f"sbatch --{key}",
            repr(text),
            "must be one line without control characters",
            "remove them",
        )
    if re.search(r"""[\s'"\\#]""", text):
        text = "'" + re.sub(r"(['\\])", r"\\\1", text) + "'"
    return f"--{key}={text}"
