"""Hugging Face hub: distinguish hub ids from local paths, and look models up before a run."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpc_llm.errors import UserError
from hpc_llm.settings import ModelSettings

__all__ = ["SMALL_FILES", "cached_folder", "check_hub_id", "names_hub_id"]

HUB_SECONDS = 10  # timeout of the hub
INDEX = "model.safetensors.index.json"
SMALL_FILES = (
    *("config.json", "tokenizer_config.json", "generation_config.json", "adapter_config.json"),
    "*.index.json",
)
"""Files of a model that are read before it is loaded."""
DOWNLOAD = "download it on a machine with network access, or use a local folder"


def names_hub_id(path: str) -> bool:
    """Return whether `path` has the form OWNER/NAME and is no local path.

    A path that exists is local, and so is one in an existing folder: `models/x` beside `models/`.
    """
    if path.count("/") != 1 or path.startswith((".", "/", "~")) or path.endswith("/"):
        return False
    return not Path(path).exists() and not Path(path).parent.is_dir()


def cached_folder(name: str, revision: str | None, *, fetch: bool = False) -> Path | None:
    """Return the folder of a hub id in the local cache; None if it is not there.

    With `fetch` the small files are downloaded first.
    """
    from huggingface_hub import snapshot_download

    small = list(SMALL_FILES)
    with suppress(OSError, ValueError):  # not downloaded yet, no network, or no hub id
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=small, local_files_only=not fetch
            )
        )
    return None


def check_hub_id(model: ModelSettings) -> None:
    """Raise `UserError` if `model.path` is a hub id of which neither cache nor hub has the weights.

    Its small files are then in the cache. The hub has `HUB_SECONDS` to answer; a local folder is
    not looked up.
    """
    if model.path is None or not names_hub_id(model.path):
        return
    from huggingface_hub import HfApi, constants

    with _reasons(model):
        folder = cached_folder(model.path, model.revision)
        if folder is not None and _is_complete(folder):
            return
        if constants.is_offline_mode():
            rule = "is not in the cache of the hub"
            if folder is not None and (folder / "config.json").is_file():
                rule = "has its weights not, or not all of them, in the cache of the hub"
            raise UserError(
                "model.path",
                model.path,
                f"{rule}, and HF_HUB_OFFLINE=1 forbids downloads",
                DOWNLOAD,
            )
        found = HfApi().model_info(model.path, revision=model.revision, timeout=HUB_SECONDS)
        _check_names(model.path, [file.rfilename for file in found.siblings or ()])
        cached_folder(model.path, model.revision, fetch=True)


def _is_complete(folder: Path) -> bool:
    """Whether a folder of the cache has all weights, and a configuration."""
    names = ["config.json", "model.safetensors"]
    if (folder / INDEX).is_file():
        with suppress(OSError, ValueError, KeyError, AttributeError):
            weights = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            names[1:] = {str(name) for name in weights.values()}
    return all((folder / name).is_file() for name in names)


def _check_names(path: str, names: Iterable[str]) -> None:
    """Raise `UserError` unless the files of a model on the hub are those of a model."""
    names = list(names)
    if "config.json" not in names:
        rule = "has no config.json on the hub: it is no model in the layout of transformers"
        raise UserError("model.path", path, rule, "use another model")
    if not any(name.endswith(".safetensors") for name in names):
        fix = "pickled weights are not loaded; use a revision or a model with safetensors"
        raise UserError("model.path", path, "has no *.safetensors on the hub", fix)


@contextmanager
def _reasons(model: ModelSettings) -> Iterator[None]:
    """Turn the errors of the hub into a `UserError` with a fix for each reason."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    key, value = "model.path", model.path
    try:
        yield
        return
    except UserError:
        raise
    except HFValidationError as error:
        cause: Exception = error
        rule, fix = " ".join(str(error).split()), "use a folder or OWNER/NAME"
    except GatedRepoError as error:
        cause = error
        rule = "is a gated model of the hub"
        fix = "accept its terms there, then log in with `hf auth login`"
    except RepositoryNotFoundError as error:
        cause = error
        rule = "no such folder or hub model"
        fix = "use a folder or OWNER/NAME; a private model needs `hf auth login`"
    except RevisionNotFoundError as error:
        cause = error
        key, value = "model.revision", model.revision
        rule = f"{model.path} has no such branch, tag or commit on the hub"
        fix = "use one of those, or null for its default branch"
    except Exception as error:  # of the network: httpx, TLS, proxies
        cause = error
        rule = f"no such folder, and the hub cannot be reached ({type(error).__name__})"
        fix = DOWNLOAD
    raise UserError(key, value, rule, fix) from cause
