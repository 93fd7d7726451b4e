"""Model folders looked at without torch, so that a wrong one is refused before anything starts."""

from pathlib import Path

from hpc_llm.errors import UserError

__all__ = ["check_model_folder"]


def check_model_folder(path: str) -> None:
    """Raise `UserError` when `path` is a local folder without configuration or weights.

    A `path` that is no local folder is taken as a hub id and left to transformers.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        if path.count("/") != 1 or path.startswith((".", "/", "~")):
            raise UserError(
                "model.path",
                path,
                "no such folder",
                "give a folder or OWNER/NAME",
            )
        return
    if not (folder / "config.json").is_file():
        raise UserError(
            "model.path",
            path,
            "holds no config.json",
            "give a Hugging Face folder",
        )
    if any(folder.glob("*.safetensors")):
        return
    cure = "give a folder with *.safetensors"
    if any(folder.glob("*.bin")):
        cure = "pickled weights (*.bin) are not loaded; convert them to safetensors"
    raise UserError(
        "model.path",
        path,
        "holds no weights",
        cure,
    )
