"""Settings of where a run runs (`conf/launch/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import require_choice, require_positive

__all__ = ["LaunchSettings"]


@dataclass(kw_only=True)
class LaunchSettings:
    """Here and now; `sbatch slurm/adapt.sbatch` runs the same on Slurm."""

    name: str
    """local."""
    processes: int
    """Ranks to start on this machine."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_choice("launch.name", self.name, ("local",))
        require_positive("launch.processes", self.processes)
