"""Settings of earlier versions: errors that name their replacements."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from hpc_llm.errors import UserError
from hpc_llm.methods import method_names

__all__ = ["new_form", "refuse_old_names"]

TWO_STAGE = ("embeddings", "lora")


def refuse_old_names(overrides: Sequence[Override]) -> None:
    """Raise `UserError` for settings of earlier versions, naming the replacement."""
    for override in overrides:
        key = override.key_or_group.lstrip("+~")
        if key == "recipe.stages":
            raise new_form((override.input_line or "").partition("=")[2])
        parts = key.split(".")
        if parts[0] == "train" and len(parts) > 1 and parts[1] in (*method_names(), "pretrain"):
            new = ".".join(["stages", *parts[1:]])
        elif parts[0] == "replay":
            new = ".".join(["rerun", *parts[1:]])
        else:
            continue
        raise UserError(key, None, "no such setting", f"did you mean {new}?")


def new_form(stages: Any) -> UserError:
    """Return the error for `recipe.stages=[...]`, with its replacement."""
    listed = str(stages).strip("[]").replace(" ", "").replace("'", "").split(",")
    if listed == ["full"]:
        words = "recipe=end_to_end"
    elif listed[:1] == ["pretrain"] and tuple(listed[1:]) == TWO_STAGE:
        words = "recipe=example"
    else:
        methods = {"pretrain": "full"}
        words = " ".join(
            [f"~stages.{name}" for name in TWO_STAGE if name not in listed]
            + [
                f"+method@stages.{name}={methods.get(name, name)}"
                for name in filter(None, listed)
                if name not in TWO_STAGE
            ]
        )
    return UserError(
        "recipe.stages", f"[{','.join(listed)}]", "stages are named instances, stages.NAME",
        f"write {words or 'recipe=two_stage'}",
    )  # fmt: skip
