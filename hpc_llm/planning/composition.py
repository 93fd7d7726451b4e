"""The plan of a composition: what it reads, writes and evaluates. It trains nothing."""

import os
from pathlib import Path

from hpc_llm.errors import UserError
from hpc_llm.settings import RunConfig

__all__ = ["composition_text"]

GB = 1e9


def composition_text(cfg: RunConfig) -> str:
    """Return the plan as text. Raises `UserError` for another format than `table`."""
    if cfg.plan.format != "table":
        rule = "a composition trains nothing, so it has no table of costs"
        raise UserError("plan.format", cfg.plan.format, rule, "remove it")
    lines = [f"compose={cfg.compose.kind}: no training"]
    for key, path in cfg.compose.inputs.items():
        lines.append(f"  reads {key}={path}{_size(path)}")
    lines.append(f"  writes {cfg.folder}/compose/model")
    points = "the instruct model and the result" if cfg.compose.reference else "the result"
    if cfg.corpus.texts_in("target"):
        lines.append(f"  evaluates {points} on held-out text")
    return "\n".join(lines) + "\n"


def _size(path: str) -> str:
    """Return the size of the weights of a folder, to append; nothing if they are not there."""
    folder = Path(os.path.expanduser(path))
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("**/model/*.safetensors"))
    total = sum(file.stat().st_size for file in weights)
    return f" ({total / GB:.3g} GB)" if total else ""
