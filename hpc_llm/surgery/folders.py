"""Check model folders and hub ids without torch, so that wrong ones fail before anything starts."""

from pathlib import Path

from hpc_llm.errors import UserError
from hpc_llm.settings import ModelSettings

__all__ = ["check_hub_id", "check_model_folder", "names_hub_id"]

HUB_SECONDS = 10  # timeout of the hub


def names_hub_id(path: str) -> bool:
    """Return whether `path` has the form OWNER/NAME and is no local path.

    A path that exists is local, and so is one in an existing folder: `models/x` beside `models/`.
    """
    if path.count("/") != 1 or path.startswith((".", "/", "~")) or path.endswith("/"):
        return False
    return not Path(path).exists() and not Path(path).parent.is_dir()


def check_hub_id(model: ModelSettings) -> None:
    """Raise `UserError` if `model.path` is a hub id that neither the cache nor the hub has.

    Takes at most `HUB_SECONDS`; a local folder is not looked up.
    """
    if model.path is None or not names_hub_id(model.path):
        return
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    fix = "download it on a machine with network access, or use a local folder"
    try:
        if isinstance(
            try_to_load_from_cache(model.path, "config.json", revision=model.revision), str
        ):
            return
        if constants.is_offline_mode():
            rule = "is not in the cache of the hub, and HF_HUB_OFFLINE=1 forbids to download it"
            raise UserError("model.path", model.path, rule, fix)
        HfApi().model_info(model.path, revision=model.revision, timeout=HUB_SECONDS)
    except UserError:
        raise
    except HFValidationError as error:
        text = " ".join(str(error).split())
        raise UserError("model.path", model.path, text, "use a folder or OWNER/NAME") from error
    except GatedRepoError as error:
        fix = "accept its terms there, then log in with `hf auth login`"
        raise UserError("model.path", model.path, "is a gated model of the hub", fix) from error
    except RepositoryNotFoundError as error:
        fix = "use a folder or OWNER/NAME; a private model needs `hf auth login`"
        raise UserError("model.path", model.path, "no such folder or hub model", fix) from error
    except Exception as error:  # of the network: httpx, TLS, proxies
        rule = f"no such folder, and the hub cannot be reached ({type(error).__name__})"
        raise UserError("model.path", model.path, rule, fix) from error


def check_model_folder(path: str) -> None:
    """Raise `UserError` if `path` is a local folder without configuration or weights.

    A `path` that is not a local folder is treated as a hub id and left to transformers.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        if not names_hub_id(path):
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
