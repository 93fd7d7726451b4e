"""Settings that compositions share (`conf/compose/`); each adds its own in `ensembles/NAME.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields

__all__ = ["ComposeSettings", "ModelsSettings"]


@dataclass(kw_only=True)
class ComposeSettings:
    """A composition: a model or an adapter made of others, without training."""

    kind: str
    """Its name, that of its file in `hpc_llm/ensembles/`."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "compose")

    @property
    def inputs(self) -> Mapping[str, str]:
        """The models and adapters that it reads, by setting: folders, run folders or hub ids."""
        return {}

    @property
    def reference(self) -> str | None:
        """The model that evaluation compares the result with; None: there is none."""
        return None


@dataclass(kw_only=True)
class ModelsSettings(ComposeSettings):
    """Settings of compositions of a base model, its instruct sibling and its adapted version."""

    base: str | None
    """The base model of both others: a folder or a hub id."""
    instruct: str | None
    """The instruct model trained from `base`: a folder or a hub id."""
    adapted: str | None
    """The model adapted from `base`: a run folder, or a model folder or a hub id."""

    def __post_init__(self) -> None:
        """Check the values. Raises `UserError` for a model that is not given."""
        super().__post_init__()
        for field in fields(ModelsSettings):
            if getattr(self, field.name) is None:
                where = "RUN_FOLDER" if field.name == "adapted" else "FOLDER_OR_HUB_ID"
                fix = f"set compose.{field.name}={where}"
                raise UserError(f"compose.{field.name}", "null", "no model", fix)

    @property
    def inputs(self) -> Mapping[str, str]:
        """The three models, by setting."""
        names = ("base", "instruct", "adapted")
        return {f"compose.{name}": str(getattr(self, name)) for name in names}

    @property
    def reference(self) -> str | None:
        """The instruct model."""
        return self.instruct
