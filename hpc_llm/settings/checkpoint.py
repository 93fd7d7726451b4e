"""Settings of checkpoints (`conf/checkpoint/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import check_fields, count, positive, require_choice

__all__ = ["CheckpointSettings"]

LAYOUTS = ("auto", "whole", "sharded")
CHANGED = ("refuse", "restart")


@dataclass(kw_only=True)
class CheckpointSettings:
    """When and how training is saved, and which checkpoints are kept."""

    minutes: float = positive(1e15)
    """Minutes between two checkpoints."""
    keep: int = count(10**6)
    """Number of newest checkpoints to keep."""
    keep_best: bool
    """Also keep the checkpoint with the lowest training loss."""
    background: bool
    """Write to disk asynchronously: training pauses only while states are copied to host memory."""
    layout: str
    """whole (trained parameters by name, one file) | sharded (each rank writes its part; converted
    for another number of ranks) | auto: sharded above `whole_elements` trained parameters."""
    whole_elements: int = count(10**15)
    """Trained parameters up to which layout=auto is whole: rank 0 stores 12 bytes of each."""
    changed: str
    """If the settings of an interrupted stage changed: refuse (report the difference and end) |
    restart (train the stage from scratch; its checkpoints are moved to superseded/)."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "checkpoint")
        require_choice("checkpoint.layout", self.layout, LAYOUTS)
        require_choice("checkpoint.changed", self.changed, CHANGED)

    def layout_for(self, trained: int, zero_stage: int, tensor: int) -> str:
        """Return `whole` or `sharded` for that many trained parameters.

        States that `tensor` ranks split (above 1) are gathered by name, so they are whole.
        """
        if self.layout != "auto":
            return self.layout
        large = trained > self.whole_elements
        return "sharded" if large and zero_stage and tensor == 1 else "whole"
