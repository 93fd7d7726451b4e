"""The context passed to every stage: configuration, run folder, ranks, stop requests."""

import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hpc_llm
from hpc_llm.distributed import Layout, Ranks, layout_of
from hpc_llm.pipeline.account import Account
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.rundir import RunFolder
from hpc_llm.settings import RunConfig
from hpc_llm.tracking import EventLog, NoView, WandbView

__all__ = ["Context", "commit", "versions"]

PACKAGES = (
    "torch", "deepspeed", "transformers", "peft", "liger-kernel", "sentencepiece", "tokenizers",
    "numpy",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Context:
    """The context of a stage."""

    cfg: RunConfig
    folder: RunFolder
    ranks: Ranks
    events: EventLog
    view: WandbView | NoView
    stop_reason: Callable[[], str | None]
    """The reason to stop at the next boundary; None: continue."""
    base: Path | str
    """The model to adapt: a folder or a hub id."""
    stages: tuple[Stage, ...]
    """All stages of the run, in order."""
    chosen: tuple[Stage, ...]
    """Stages that this call may run."""
    account: Account
    """The cost account of the run; only rank 0 writes."""

    @property
    def layout(self) -> Layout:
        """Data, sequence and tensor parallelism over the ranks."""
        parallel = self.cfg.parallel
        return layout_of(self.ranks.world_size, parallel.sequence, parallel.tensor)

    def stage(self, name: str) -> Stage:
        """Return a stage by name."""
        return next(stage for stage in self.stages if stage.name == name)

    def stage_folder(self, name: str) -> Path:
        """Return the folder of a stage, such as train/lora."""
        return self.folder.path / name


def versions() -> dict[str, str]:
    """Return the versions of the packages on which results depend."""
    found = {"hpc_llm": hpc_llm.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """Return the commit of the running source; None if there is none."""
    root = Path(hpc_llm.__file__).resolve().parent.parent
    if (root / "COMMIT").is_file():  # a copy made by launch.snapshot
        return (root / "COMMIT").read_text(encoding="utf-8").strip()
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
