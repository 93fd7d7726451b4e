"""`hpc-llm diff RUN_FOLDER RUN_FOLDER`: where two runs diverge."""

from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.distributed import visible
from hpc_llm.errors import UserError
from hpc_llm.rundir import RunFolder

__all__ = ["run_diff"]


def run_diff(arguments: Arguments) -> int:
    """Print differing settings and, for each stage, the first step at which two runs diverge."""
    from hpc_llm import config
    from hpc_llm.tracking import compare_runs

    if len(arguments.overrides) != 2:
        raise UserError(
            "diff",
            None,
            "pass two run folders, for example hpc-llm diff runs/a runs/b",
        )
    one, other = (RunFolder(Path(word)) for word in arguments.overrides)
    for folder in (one, other):
        if not folder.events.is_file():
            raise UserError(
                folder.path,
                None,
                "has no events.jsonl",
                "pass the folder of a run that has trained",
            )
    for line in config.differences(one.config, config.load(other.config)):
        print(visible(line))
    print(visible(compare_runs(one.path, other.path)), end="")
    return 0
