"""Settings of experiment tracking (`conf/tracking/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import check_fields, require_choice

__all__ = ["TrackingSettings"]


@dataclass(kw_only=True)
class TrackingSettings:
    """Experiment tracking; W&B is a view of `events.jsonl`, which has everything."""

    name: str
    """wandb | off."""
    project: str
    """W&B project."""
    entity: str | None
    """W&B team or user; null: your default."""
    group: str | None
    """W&B group; the trials of a sweep (-m) share one, named after the sweep, unless it is set."""
    mode: str
    """offline | online | disabled; the environment variable WANDB_MODE takes precedence."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "tracking")
        require_choice("tracking.name", self.name, ("wandb", "off"))
        require_choice("tracking.mode", self.mode, ("offline", "online", "disabled"))
