"""Settings of the recipe (`conf/recipe/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_choice
from hpc_llm.settings.train import STAGES

__all__ = ["RecipeSettings"]


@dataclass(kw_only=True)
class RecipeSettings:
    """Which training stages run, in which order."""

    name: str
    """What reports call it."""
    stages: list[str]
    """Stages of `train`, in order; `pretrain` makes a base model where there are no weights."""

    def __post_init__(self) -> None:
        """Check the values."""
        for stage in self.stages:
            require_choice("recipe.stages", stage, STAGES)
        if len(set(self.stages)) != len(self.stages):
            raise UserError(f"recipe.stages={self.stages}: a stage stands twice; name each once")
        if "pretrain" in self.stages[1:]:
            raise UserError(f"recipe.stages={self.stages}: pretrain can only come first")

    @property
    def adaptation(self) -> list[str]:
        """The stages that train the transplanted model."""
        return [stage for stage in self.stages if stage != "pretrain"]
