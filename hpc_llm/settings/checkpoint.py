"""Settings of checkpoints (`conf/checkpoint/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import require_choice, require_positive

__all__ = ["CheckpointSettings"]

LAYOUTS = ("auto", "whole", "sharded")
CHANGED = ("refuse", "restart")


@dataclass(kw_only=True)
class CheckpointSettings:
    """When training is saved, how, and what is kept."""

    minutes: float
    """Minutes between two checkpoints."""
    keep: int
    """Newest checkpoints that are kept."""
    keep_best: bool
    """Keep the one with the lowest training loss too."""
    background: bool
    """Write to the disk while training goes on: the stall is the copy in memory."""
    layout: str
    """whole (trained parameters by name, one file) | sharded (each rank writes its part; converted
    for another number of ranks) | auto: sharded above `whole_elements` trained parameters."""
    whole_elements: int
    """Trained parameters up to which layout=auto is whole: rank 0 holds 12 bytes of each."""
    changed: str
    """When an interrupted stage was begun with other settings: refuse (say which they are; nothing
    is spent) | restart (restart the stage; its checkpoints are moved to superseded/)."""

    def __post_init__(self) -> None:
        """Check the values."""
        for key in ("minutes", "keep", "whole_elements"):
            require_positive(f"checkpoint.{key}", getattr(self, key))
        require_choice("checkpoint.layout", self.layout, LAYOUTS)
        require_choice("checkpoint.changed", self.changed, CHANGED)
