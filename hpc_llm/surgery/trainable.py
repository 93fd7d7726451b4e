"""Trainable parameters of a stage: unfrozen or adapted as described by its method.

Adapters are created with peft, from the configuration class that the method names.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import peft
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from hpc_llm.accounting.method import own_names
from hpc_llm.errors import UserError
from hpc_llm.methods import ALL_LAYERS, Adapter, Trains, describe, trains
from hpc_llm.settings import StageSettings
from hpc_llm.surgery.adapters import adapted_weight, is_linear
from hpc_llm.surgery.loading import full_shape
from hpc_llm.surgery.recomputation import recompute_layers, recompute_selectively

__all__ = ["Trainable", "linear_layers", "make_trainable", "not_adapted"]

MAMBAS = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
PEFT_REFUSES = ("out_proj", "conv1d")  # their fused kernels read these weights


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
    """Trained input embedding and LM head, by their names in the plain model."""
    body: dict[str, torch.nn.Parameter]
    """Other trained parameters, by the same names."""
    frozen_rows: torch.Tensor | None = None
    """Bool (vocabulary,): mask of frozen rows of the embeddings; their gradient is 0."""

    @property
    def weights(self) -> dict[str, torch.nn.Parameter]:
        """Trained parameters that also exist in the plain model, by name."""
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
    *,
    selective: bool = False,
) -> Trainable:
    """Freeze all parameters not trained in `stage`, and add adapters if its method has them.

    `recompute` recomputes the layers in the backward pass, `selective` only their cheap operations.
    `new_rows` are the ids of trained rows, if the method trains only these. Raises `UserError` for
    a target layer that the model does not have.
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
    if selective:
        recompute_selectively(model, 0 if what.adapter is None else what.adapter.inner)
    elif recompute:
        recompute_layers(model)
    if (recompute or selective) and not what.body and not embeddings:
        model.enable_input_require_grads()
    frozen = _freeze_rows(embeddings, new_rows) if what.only_new_rows else None
    return Trainable(wrapped, model, adapters, embeddings, body, frozen)


def _freeze_rows(
    embeddings: dict[str, torch.nn.Parameter], new_rows: Sequence[int]
) -> torch.Tensor:
    """Train only `new_rows` of the embeddings: set the gradient of all other rows to 0.

    Adam does not change a weight whose gradient was always 0, bit for bit: both moments are 0. The
    gradient is set in an autograd hook, so this holds for any later partitioning.
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
    """Return the trained input embedding and LM head (a single tensor if they are tied)."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    found = list(inputs.parameters()) if what.embedding else []
    return [*found, *head.parameters()] if what.head else found


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Return names that peft matches with the body's linear layers, such as q_proj; not the head.

    A name is the last part of the module names, or a whole module name where that last part is
    also one of other modules (0 in a list of layers). Layers that peft refuses to adapt, of Mamba,
    are not among them.
    """
    head = model.get_output_embeddings()
    linear, others = {}, set()
    for name, module in model.named_modules():
        if module is head or not name:
            continue
        if is_linear(module):
            linear[name] = name.rsplit(".", 1)[-1]
        else:
            others.add(name.rsplit(".", 1)[-1])
    refused = PEFT_REFUSES if model.config.model_type in MAMBAS else ()
    names = {whole if last in others else last for whole, last in linear.items()}
    return sorted(names.difference(refused))


def _stacked(model: torch.nn.Module) -> list[str]:
    """Return the names of the stacked expert weights of a model."""
    return [
        name
        for name, weight in model.named_parameters()
        if len(full_shape(weight)) == 3 and "expert" in name
    ]


def _check_stacked(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """Raise `UserError` for a target that no stacked expert weight's name ends with."""
    names = _stacked(model)
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in names):
            known = ", ".join(sorted({".".join(name.split(".")[-2:]) for name in names}))
            rule = f"{type(model).__name__} has no such stacked expert weight"
            fix = f"use names out of {known}" if known else "use []: it has none"
            raise UserError("target_parameters", target, rule, fix)


def not_adapted(trainable: Trainable) -> list[str]:
    """Return the names of stacked expert weights that have no adapter, as they are in a layer.

    Experts are no linear layers: peft adapts them only where it knows their names.
    """
    adapted = {
        id(adapted_weight(module))
        for module in trainable.model.modules()
        if isinstance(module, LoraLayer)
    }
    weights = dict(trainable.causal.named_parameters())
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name in _stacked(trainable.causal)
            if id(weights[name]) not in adapted
        }
    )


def add_adapters(model: PreTrainedModel, stage: StageSettings, adapter: Adapter) -> PeftModel:
    """Add the adapters of the stage's method to its target layers. `UserError` for unknown ones."""
    known = linear_layers(model)
    targets = known if adapter.targets == ALL_LAYERS else own_names(adapter.targets, known)
    _check_stacked(model, adapter.stacked)
    build = describe(stage.method).peft
    assert build is not None
    name, arguments = build(stage, targets)
    try:
        config = getattr(peft, name)(task_type="CAUSAL_LM", **arguments)
    except (AttributeError, TypeError, ValueError) as error:
        rule = f"peft rejects {name}({', '.join(arguments)}): {error}"
        raise UserError(
            f"method {stage.method}", None, rule, "correct the method's file"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, config, autocast_adapter_dtype=False)
