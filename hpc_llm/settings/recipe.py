"""Settings of the recipe (`conf/recipe/`), which composes the stages under `stages.NAME`."""

from dataclasses import dataclass

__all__ = ["RecipeSettings"]


@dataclass(kw_only=True)
class RecipeSettings:
    """A recipe: its name; its stages are `stages.NAME.*`, in order."""

    name: str
    """Name in reports."""
