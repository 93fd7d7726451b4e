"""Settings of the recipe (`conf/recipe/`), which composes the stages under `stages.NAME`."""

from dataclasses import dataclass

from hpc_llm.settings.checks import check_fields

__all__ = ["RecipeSettings"]


@dataclass(kw_only=True)
class RecipeSettings:
    """A recipe: its name; its stages are `stages.NAME.*`, in order."""

    name: str
    """Name in reports."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "recipe")
