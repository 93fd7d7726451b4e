"""Models whose weights stay on disk: modules on the meta device, tensors in the shards of a folder.

What changes a few tensors of a model (a transplant, a merge) reads these, and writes all others
from file to file one at a time. This needs a folder whose tensors are those that transformers would
write for the model: others (joined, split or renamed while loading) are loaded as a whole.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from hpc_llm.settings import ModelSettings
from hpc_llm.surgery.hub import cached_folder
from hpc_llm.surgery.loading import DTYPES, load_model
from hpc_llm.surgery.merge import save_model
from hpc_llm.surgery.shards import MODEL, StoredWeights, write_shards

__all__ = ["NotStreamed", "Outline", "open_outline"]

TensorOf = Callable[[str], torch.Tensor]


class NotStreamed(Exception):
    """The weights of a folder cannot be streamed; the message is the reason."""


@dataclass(frozen=True)
class Outline:
    """A model on the meta device, and the folder's tensors by the names in its files."""

    model: PreTrainedModel
    stored: StoredWeights
    types: Mapping[str, torch.dtype]
    """Number types that loading gives the tensors: a few stay in fp32 until the model is saved."""
    precision: torch.dtype

    def file_names(self) -> dict[str, str]:
        """Return the name in the files for each tensor of the model that is stored unchanged."""
        state = self.model.state_dict()
        by_tensor = {id(tensor): name for name, tensor in _saved(self.model, state).items()}
        return {name: by_tensor[id(t)] for name, t in state.items() if id(t) in by_tensor}

    def load_ends(self) -> None:
        """Read input embedding and LM head into the model. Raises `NotStreamed`."""
        names = self.file_names()
        parameters = dict(self.model.named_parameters())
        inputs, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        ends = [module for module in (inputs, head) if module is not None]
        wanted = {id(parameter) for module in ends for parameter in module.parameters()}
        for name, empty in parameters.items():
            if id(empty) not in wanted:
                continue
            if name not in names:
                raise NotStreamed(f"{name} is not in its files as it is in the model")
            value = torch.nn.Parameter(self.tensor(names[name]), requires_grad=False)
            for module in ends:
                for own, parameter in module.named_parameters():
                    if parameter is empty:
                        owner = module.get_submodule(own.rpartition(".")[0])
                        setattr(owner, own.rpartition(".")[2], value)

    def tensor(self, name: str) -> torch.Tensor:
        """Read a tensor of the files as loading the model does."""
        return self.stored[name].to(self.types[name])

    def save(
        self,
        tokenizer: PreTrainedTokenizerBase | Path,
        folder: Path,
        tensor_of: TensorOf | None = None,
    ) -> None:
        """Write a model folder as `save_model` does, with the tensors still on disk.

        `tensor_of` gives those, by their names in the files, in place of `tensor`. Raises
        `NotStreamed`, before anything is written, if one has got another shape.
        """
        self.model.to(self.precision)
        saved = _saved(self.model, self.model.state_dict())
        for name, tensor in saved.items():
            if tensor.is_meta and self.stored.empty(name).shape != tensor.shape:
                raise NotStreamed(f"{name} changes with the vocabulary")
        save_model(self.model, tokenizer, folder, self.precision, without_weights=True)
        stored = tensor_of or self.tensor

        def one(name: str) -> torch.Tensor:
            tensor = saved[name]
            return stored(name).to(tensor.dtype) if tensor.is_meta else tensor

        write_shards(folder, MODEL, saved, one)


def _saved(model: PreTrainedModel, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors that `save_pretrained` writes for `state`, by their names in the files."""
    ignored = set(model._keys_to_ignore_on_save or ())
    kept = {name: tensor for name, tensor in state.items() if name not in ignored}
    saved: dict[str, torch.Tensor] = revert_weight_conversion(
        model, remove_tied_weights_from_state_dict(kept, model)
    )
    return saved


def open_outline(path: Path | str, settings: ModelSettings, precision: str) -> Outline:
    """Open the model at `path` without its weights.

    Raises `UserError` as `load_model` does, and `NotStreamed` if its files have other tensors than
    transformers would write for it.
    """
    model = load_model(path, settings, precision, on_meta=True)
    if model.is_remote_code():
        raise NotStreamed("the model has code of its own")
    local = Path(path).expanduser()
    folder = local if local.is_dir() else cached_folder(str(path), settings.revision)
    if folder is None or not any(
        (folder / f"{MODEL}.safetensors{end}").is_file() for end in ("", ".index.json")
    ):
        raise NotStreamed("its files have names of their own")
    for target, source in model.all_tied_weights_keys.items():
        if model.get_parameter(target) is not model.get_parameter(source):
            raise NotStreamed(f"{target} and {source} are both in its files, and may be tied")
    stored = StoredWeights(folder, MODEL)
    saved = _saved(model, model.state_dict())
    if missing := sorted(saved.keys() - stored.keys()):
        raise NotStreamed(f"{missing[0]} is not in its files as it is in the model")
    for name, tensor in saved.items():
        empty = stored.empty(name)
        if empty.shape != tensor.shape or empty.is_floating_point() != tensor.is_floating_point():
            raise NotStreamed(f"{name} has another form in its files than in the model")
    types = {name: tensor.dtype for name, tensor in saved.items()}
    return Outline(model, stored, types, DTYPES[precision])
