"""Models and tokenizers in the Hugging Face layout: load, apply trained weights, save.

Weights are safetensors; pickles are never loaded, and code shipped with a model is not run unless
`model.trust_remote_code` is set.

For ZeRO-3 a model is partitioned across ranks during construction, so no rank ever holds all of it
(Rajbhandari et al. 2020). `division` is the DeepSpeed configuration for that; None: unpartitioned.
"""

import inspect
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from hpc_llm.distributed import say
from hpc_llm.errors import UserError
from hpc_llm.settings import ModelSettings
from hpc_llm.surgery.folders import check_model_folder
from hpc_llm.surgery.shards import StoredWeights
from hpc_llm.surgery.split import split_of
from hpc_llm.surgery.trust import check_model_files

__all__ = [
    "DTYPES",
    "apply_weights",
    "build_model",
    "embedding_rows",
    "end_division",
    "full_shape",
    "gathered",
    "load_model",
    "load_tokenizer",
    "model_type",
    "part_shape",
    "quiet_transformers",
    "takes_positions",
]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def quiet_transformers() -> None:
    """Disable transformers' progress bars and hints on the console."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextmanager
def _divided(division: dict[str, Any] | None) -> Iterator[None]:
    """Partition models that transformers builds inside the block.

    transformers keeps a weak reference to the configuration, so it must live as long as the block;
    after the block models are unpartitioned again, as required by evaluation.
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
    """Undo what DeepSpeed set for the whole process when it partitioned a model (collective).

    Restores torch's linear function: DeepSpeed's version frees the gathered weights of a layer.
    Unpartitioned models do not need it, and evaluation then uses the same arithmetic whether or not
    the process has trained before. Destroys the process group of a node (`zero.node_partition`):
    DeepSpeed refuses to create it again for the next model, and would use it for a model without.
    """
    from deepspeed import comm
    from deepspeed.runtime.zero import partition_parameters
    from deepspeed.utils import groups

    patched = partition_parameters.InsertPostInitMethodToModuleSubClasses
    torch.nn.functional.linear = getattr(patched, "linear_bk", torch.nn.functional.linear)
    node = groups._get_zero_param_intra_parallel_group()
    if node is not None:
        comm.destroy_process_group(node)


def full_shape(parameter: torch.Tensor) -> torch.Size:
    """Return the full shape of a parameter, also if it is partitioned by ZeRO-3 or split."""
    split = split_of(parameter)
    return part_shape(parameter) if split is None else split.shape


def part_shape(parameter: torch.Tensor) -> torch.Size:
    """Return the shape of this rank's part of a split parameter, else the full one."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


@contextmanager
def gathered(parameters: Iterable[torch.Tensor], write: bool = True) -> Iterator[None]:
    """Gather partitioned parameters inside the block, on every rank (collective).

    Changes made by rank 0 are kept on all ranks, with `write=False` none. Unpartitioned parameters
    are left as they are. No gradients are recorded.
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
    *,
    on_meta: bool = False,
) -> PreTrainedModel:
    """Load a causal language model in `precision`, ready for packed batches (no KV cache).

    With `on_meta` everything but the weights: its parameters are on the meta device.
    """
    quiet_transformers()
    check_model_folder(str(path))
    check_model_files(str(path), settings, fetch=True)
    with _readable(path):
        config = _config(path, settings)
        attention = _attention(config, settings.attention)
        with _divided(division):
            model, found = AutoModelForCausalLM.from_pretrained(
                path,
                config=config,  # given, so that the folder does not choose the attention
                revision=settings.revision,
                dtype=DTYPES[precision],
                attn_implementation=attention,
                trust_remote_code=settings.trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
                device_map={"": "meta"} if on_meta else None,
            )
    if missing := sorted(found["missing_keys"]):
        names = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
        rule = f"its weights lack {len(missing)} tensors of {type(model).__name__}: {names}"
        raise UserError("model.path", path, rule, "use a complete model of this class")
    if unused := sorted(found["unexpected_keys"]):
        names = ", ".join(unused[:3]) + ", ..." * (len(unused) > 3)
        say(f"{path}: {len(unused)} tensors have no place in {type(model).__name__}: {names}")
    model.config.use_cache = False  # with a cache, packed documents would attend to each other
    return model


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    """Turn errors of reading a model into a `UserError` with a fix for its cause."""
    local = Path(os.path.expanduser(path)).is_dir()
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, SafetensorError, UnpicklingError) as error:
        if "mismatched" in str(error):
            rule = "the shapes of its weights are not those of its config.json"
            fix = "compare the sizes in it with the model's own file"
            raise UserError("model.path", path, rule, fix) from error
        rule = f"its weights cannot be read: {_first_line(error)}"
        raise UserError("model.path", path, rule, "copy or download the model again") from error
    except Exception as error:  # transformers raises anything for values that do not fit
        fix = "use a folder or a reachable hub id"
        if local:
            fix = "compare its config.json with the model's own file"
        raise UserError("model.path", path, _first_line(error), fix) from error


def _first_line(error: BaseException) -> str:
    """Return the reason of an error in one line; a key alone says nothing, nor does a headline."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, KeyError):
        return f"{type(error).__name__}: {lines[0]}"
    return " ".join(line.strip() for line in lines[: 1 + lines[0].endswith(":")])


def _attention(config: PreTrainedConfig, wanted: str) -> str:
    """Return the attention implementation; raises `UserError` if the model's class lacks it."""
    kind = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if kind is None:  # remote code, which need not support anything else
        return "eager" if wanted == "auto" else wanted
    kind = kind[0] if isinstance(kind, tuple) else kind
    supported = {
        "sdpa": kind._supports_sdpa,
        "flash_attention_2": kind._supports_flash_attn,
        "eager": True,
    }
    if wanted == "auto":
        return "sdpa" if supported["sdpa"] else "eager"
    if not supported[wanted]:
        rule = f"{kind.__name__} does not support it"
        raise UserError("model.attention", wanted, rule, "use model.attention=auto")
    return wanted


def takes_positions(model: torch.nn.Module) -> bool:
    """Whether the forward pass of `model` has an argument `position_ids`."""
    return "position_ids" in inspect.signature(model.forward).parameters


def load_tokenizer(path: str | Path, settings: ModelSettings) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder."""
    quiet_transformers()
    check_model_files(str(path), settings, fetch=True)
    try:
        found = AutoTokenizer.from_pretrained(
            path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        )
    except Exception as error:  # transformers and tokenizers raise anything for a damaged file
        rule = f"no tokenizer could be read ({_first_line(error)})"
        raise UserError("model.path", path, rule, "use the tokenizer's own files") from error
    if not found.get_vocab():
        raise UserError("model.path", path, "its tokenizer has no tokens", "use its own files")
    return found


def build_model(
    architecture: dict[str, Any],
    vocab_size: int,
    seed: int,
    division: dict[str, Any] | None = None,
) -> PreTrainedModel:
    """Build an untrained model from a Hugging Face configuration mapping, in fp32 if unpartitioned.

    The weights are the same with and without partitioning: they are drawn module by module, after
    construction.
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
    """Copy the weights trained by earlier stages (shards `weights`) into `model` (collective).

    They are read one at a time; of a partitioned model only rank 0 reads, and the others receive
    their part from it.
    """
    parameters = dict(model.named_parameters())
    for folder in folders:
        stored = StoredWeights(folder)
        for name in stored:
            parameter = parameters[name]
            with gathered([parameter]):
                if not hasattr(parameter, "ds_id") or torch.distributed.get_rank() == 0:
                    parameter.copy_(stored[name])


def model_type(path: str | Path, settings: ModelSettings) -> str:
    """Return the model type (llama, qwen2, ...) from the configuration."""
    return str(_config(path, settings).model_type)


def embedding_rows(path: str | Path, settings: ModelSettings) -> int:
    """Return the rows of the embeddings, padding included, from the configuration."""
    return int(_config(path, settings).get_text_config().vocab_size)


def _config(path: str | Path, settings: ModelSettings) -> PreTrainedConfig:
    with _readable(path):
        return AutoConfig.from_pretrained(
            path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        )
