"""Trainable parameters of a stage: what its method's description says is unfrozen or adapted.

Adapters are those of peft, by the configuration that the method names.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import peft
import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from hpc_llm.errors import UserError
from hpc_llm.methods import ALL_LAYERS, Adapter, Trains, describe, trains
from hpc_llm.settings import StageSettings
from hpc_llm.surgery.loading import full_shape

__all__ = ["Trainable", "make_trainable"]


@dataclass(frozen=True)
class Trainable:
    """A model whose `requires_grad` flags are set, and the names of its trained parameters."""

    model: torch.nn.Module
    """The model itself, or a `PeftModel` around it."""
    causal: PreTrainedModel
    """The causal language model inside."""
    adapters: dict[str, torch.nn.Parameter]
    """Parameters of the adapters by name."""
    embeddings: dict[str, torch.nn.Parameter]
    """Trained input rows and LM head by the names they have in the plain model."""
    body: dict[str, torch.nn.Parameter]
    """Other trained parameters, by the same names."""
    frozen_rows: torch.Tensor | None = None
    """Bool (vocabulary,): frozen rows of the embeddings; their gradient is 0."""

    @property
    def weights(self) -> dict[str, torch.nn.Parameter]:
        """Trained parameters that the plain model has too, by name."""
        return {**self.embeddings, **self.body}

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """All trained parameters by name."""
        return {**self.adapters, **self.weights}

    @property
    def count(self) -> int:
        """Number of trained parameters."""
        sizes = sum(full_shape(p).numel() for p in self.parameters.values())
        if self.frozen_rows is None:
            return sizes
        return sizes // len(self.frozen_rows) * int((~self.frozen_rows).sum())


def make_trainable(
    model: PreTrainedModel,
    stage: StageSettings,
    recompute: bool,
    seed: int,
    new_rows: Sequence[int] = (),
) -> Trainable:
    """Freeze what does not train in `stage`, and add adapters where its method has them.

    `new_rows` are the ids of the rows that train where the method trains no others. Raises
    `UserError` for a target layer that the model does not have.
    """
    what = trains(stage)
    plain = dict(model.named_parameters())
    ends = {id(p) for p in _embedding_parameters(model, what)}
    for parameter in plain.values():
        parameter.requires_grad_(what.body or id(parameter) in ends)
    embeddings = {n: p for n, p in plain.items() if p.requires_grad and id(p) in ends}
    body = {n: p for n, p in plain.items() if p.requires_grad and id(p) not in ends}
    wrapped: torch.nn.Module = model
    adapters: dict[str, torch.nn.Parameter] = {}
    if what.adapter is not None:
        known = {id(p) for p in plain.values()}
        torch.manual_seed(seed)
        wrapped = add_adapters(model, stage, what.adapter)
        for parameter in embeddings.values():
            parameter.requires_grad_(True)  # peft froze them
        adapters = {n: p for n, p in wrapped.named_parameters() if id(p) not in known}
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if not what.body and not embeddings:
            model.enable_input_require_grads()
    frozen = _freeze_rows(embeddings, new_rows) if what.only_new_rows else None
    return Trainable(wrapped, model, adapters, embeddings, body, frozen)


def _freeze_rows(
    embeddings: dict[str, torch.nn.Parameter], new_rows: Sequence[int]
) -> torch.Tensor:
    """Let only `new_rows` of the embeddings train: the gradient of the others becomes 0.

    Adam leaves a weight whose gradient was always 0 as it is, bit for bit: both moments are 0. As
    the gradient is set where autograd hands it over, this holds however it is divided later.
    """
    frozen = torch.ones(full_shape(next(iter(embeddings.values())))[0], dtype=torch.bool)
    frozen[torch.as_tensor(new_rows)] = False

    def masked(gradient: torch.Tensor) -> torch.Tensor:
        rows = frozen.to(gradient.device)
        return gradient.masked_fill(rows if gradient.dim() == 1 else rows[:, None], 0)

    for parameter in embeddings.values():
        parameter.register_hook(masked)
    return frozen


def _embedding_parameters(model: PreTrainedModel, what: Trains) -> list[torch.Tensor]:
    """The input embeddings and the head's rows that train (one tensor where they are tied)."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    found = list(inputs.parameters()) if what.embedding else []
    return [*found, *head.parameters()] if what.head else found


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Return the last name parts of the body's linear layers, such as q_proj; not the head."""
    head = model.get_output_embeddings()
    kinds = ("Linear", "Conv1D")
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if type(module).__name__ in kinds and module is not head
        }
    )


def add_adapters(model: PreTrainedModel, stage: StageSettings, adapter: Adapter) -> PeftModel:
    """Add the adapters of the stage's method to its target layers. `UserError` for unknown ones."""
    known = linear_layers(model)
    targets = known if adapter.targets == ALL_LAYERS else list(adapter.targets)
    if missing := sorted(set(targets) - set(known)):
        raise UserError(
            "targets",
            f"[{','.join(missing)}]",
            "the model has no such linear layer",
            f"it has {', '.join(known)}",
        )
    build = describe(stage.method).peft
    assert build is not None
    name, arguments = build(stage, targets)
    config = getattr(peft, name)(task_type="CAUSAL_LM", **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, config, autocast_adapter_dtype=False)
