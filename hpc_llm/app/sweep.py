"""`hpc-llm adapt -m KEY=A,B ...`: one run for each combination, one after the other.

Hydra's basic sweeper expands the combinations; each trial is a process of its own with a run
folder of its own, `<run>-<number>`, so a failed trial stops no other. The exit code is the first
failure's.
"""

import subprocess
import sys

from hpc_llm.app.arguments import Arguments
from hpc_llm.distributed import say

__all__ = ["run_sweep"]


def run_sweep(arguments: Arguments) -> int:
    """Run every combination of the comma-separated values."""
    from hpc_llm import config

    code = 0
    for number, overrides in enumerate(config.combinations(arguments.overrides)):
        composed = config.compose(overrides, example=arguments.verb == "adapt")
        if arguments.show_config:
            print(f"# trial {number}: {' '.join(overrides)}\n{config.as_yaml(composed)}")
            continue
        cfg = config.typed(composed)
        name = f"{cfg.run or cfg.model.label}-{number}"
        say(f"trial {number}: {' '.join(overrides)} -> {cfg.runs_dir}/{name}")
        words = [str(arguments.verb), *overrides, f"run={name}"]
        done = subprocess.run([sys.executable, "-m", "hpc_llm.app", *words], check=False)
        if done.returncode:
            say(f"trial {number}: failed with exit code {done.returncode}")
        code = code or done.returncode
    return code
