"""Models and tokenizers in the Hugging Face layout: load, apply trained weights, save.

Weights are safetensors; pickle is never loaded, and code that comes with a model is not run
unless `model.trust_remote_code` says so.

For ZeRO-3 a model is divided among the ranks while it is built, so none ever holds all of it
(Rajbhandari et al. 2020). A `division` below is the DeepSpeed configuration for that; None: whole.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from hpc_llm.errors import UserError
from hpc_llm.settings import ModelSettings
from hpc_llm.surgery.folders import check_model_folder

__all__ = [
    "DTYPES",
    "apply_weights",
    "build_model",
    "end_division",
    "full_shape",
    "gathered",
    "load_model",
    "load_tokenizer",
    "model_type",
    "quiet_transformers",
]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def quiet_transformers() -> None:
    """Keep transformers' progress bars and hints off the console: ours report what happens."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextmanager
def _divided(division: dict[str, Any] | None) -> Iterator[None]:
    """Let transformers divide the models that it builds inside the block.

    transformers keeps a weak reference to the configuration, so it has to live as long as the
    block; behind the block models are whole again, as evaluation needs them.
    """
    if division is None:
        yield
        return
    from transformers.integrations import deepspeed

    kept = deepspeed.HfDeepSpeedConfig(division)
    try:
        yield
    finally:
        deepspeed.unset_hf_deepspeed_config()
        del kept


def end_division() -> None:
    """Put back torch's linear function, which DeepSpeed replaces for a whole process.

    Its own frees the weights that a layer has gathered; what is whole does not need that, and is
    evaluated by the same arithmetic whether the process has trained before or not.
    """
    from deepspeed.runtime.zero import partition_parameters

    patched = partition_parameters.InsertPostInitMethodToModuleSubClasses
    torch.nn.functional.linear = getattr(patched, "linear_bk", torch.nn.functional.linear)


def full_shape(parameter: torch.Tensor) -> torch.Size:
    """Return the shape of a whole parameter, of which a rank holds a part under ZeRO-3."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


@contextmanager
def gathered(parameters: Iterable[torch.Tensor], write: bool = True) -> Iterator[None]:
    """Make divided parameters whole inside the block, on every rank (collective).

    What rank 0 writes into them is kept by all; with `write=False` nothing is. Parameters that are
    not divided are what they are. No gradient is recorded.
    """
    divided = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    with torch.no_grad():
        if not divided:
            yield
            return
        import deepspeed

        with deepspeed.zero.GatheredParameters(divided, modifier_rank=0 if write else None):
            yield


def load_model(
    path: str | Path,
    settings: ModelSettings,
    precision: str,
    division: dict[str, Any] | None = None,
) -> PreTrainedModel:
    """Load a causal language model in `precision`, ready for packed batches (no KV cache)."""
    quiet_transformers()
    check_model_folder(str(path))
    try:
        with _divided(division):
            model = AutoModelForCausalLM.from_pretrained(
                path,
                revision=settings.revision,
                dtype=DTYPES[precision],
                attn_implementation=settings.attention,
                trust_remote_code=settings.trust_remote_code,
                use_safetensors=True,
            )
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            "model.path",
            path,
            first,
            "give a folder or a reachable id",
        ) from error
    model.config.use_cache = False  # with the cache on, packed documents would see each other
    return model


def load_tokenizer(path: str | Path, settings: ModelSettings) -> PreTrainedTokenizerBase:
    """Load the tokenizer that lies beside a model."""
    quiet_transformers()
    try:
        return AutoTokenizer.from_pretrained(
            path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            "model.path",
            path,
            f"no tokenizer could be read ({first})",
        ) from error


def build_model(
    architecture: dict[str, Any],
    vocab_size: int,
    seed: int,
    division: dict[str, Any] | None = None,
) -> PreTrainedModel:
    """Build an untrained model from a Hugging Face configuration mapping, in fp32 when whole.

    Divided or not it has the same weights: drawn module by module, not while it is put together.
    """
    quiet_transformers()
    settings = {**architecture, "vocab_size": vocab_size}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(seed)
    if division is not None:
        with _divided(division):
            model = AutoModelForCausalLM.from_config(config)
    else:
        with no_init_weights():
            model = AutoModelForCausalLM.from_config(config)
        model.init_weights()
    model.config.use_cache = False
    return model


def apply_weights(model: torch.nn.Module, folders: Iterable[Path]) -> None:
    """Copy the weights that earlier stages trained (`weights.safetensors`) into `model`.

    They are read one after another, so that a rank holds one of them at a time.
    """
    parameters = dict(model.named_parameters())
    for folder in folders:
        with safe_open(folder / "weights.safetensors", "pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no mapping
                with gathered([parameters[name]]):
                    parameters[name].copy_(file.get_tensor(name))


def model_type(path: str | Path, settings: ModelSettings) -> str:
    """Return the kind of a model (llama, qwen2, ...) from its configuration."""
    config = AutoConfig.from_pretrained(
        path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
    )
    return str(config.model_type)
