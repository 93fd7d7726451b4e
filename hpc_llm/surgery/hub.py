"""Hugging Face hub: distinguish hub ids from local paths, and look models up before a run."""

from pathlib import Path

from hpc_llm.errors import UserError
from hpc_llm.settings import ModelSettings

__all__ = ["check_hub_id", "names_hub_id"]

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
