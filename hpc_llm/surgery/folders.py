"""Check model folders without torch, so that a wrong one fails before anything starts."""

from pathlib import Path

from hpc_llm.errors import UserError

__all__ = ["check_model_folder"]


def check_model_folder(path: str) -> None:
    """Raise `UserError` if `path` is a local folder without configuration or weights.

    A `path` that is not a local folder is treated as a hub id and left to transformers.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        if path.count("/") != 1 or path.startswith((".", "/", "~")):
            raise UserError(
                "model.path",
                path,
                "no such folder",
                "use a folder or OWNER/NAME",
            )
        return
    if not (folder / "config.json").is_file():
        raise UserError(
            "model.path",
            path,
            "has no config.json",
            "use a Hugging Face model folder",
        )
    if any(folder.glob("*.safetensors")):
        return
    fix = "use a folder with *.safetensors"
    if any(folder.glob("*.bin")):
        fix = "pickled weights (*.bin) are not loaded; convert them to safetensors"
    raise UserError(
        "model.path",
        path,
        "has no weights",
        fix,
    )
