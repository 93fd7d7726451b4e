"""Settings of experiment tracking (`conf/tracking/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import require_choice

__all__ = ["TrackingSettings"]


@dataclass(kw_only=True)
class TrackingSettings:
    """W&B is a view of `events.jsonl`: without it nothing is lost."""

    name: str
    """wandb | off."""
    project: str
    """W&B project."""
    entity: str | None
    """W&B team or user; null: your default."""
    group: str | None
    """W&B group; the trials of a sweep (-m) share one, made of its name, unless you give one."""
    mode: str
    """offline | online | disabled; the environment's WANDB_MODE comes first."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_choice("tracking.name", self.name, ("wandb", "off"))
        require_choice("tracking.mode", self.mode, ("offline", "online", "disabled"))
