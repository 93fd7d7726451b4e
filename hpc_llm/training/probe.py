"""Ask the model itself whether packed documents are apart, before it trains on them.

In a packed sequence documents follow each other, and only `position_ids` that restart at 0 mark
their borders. Some models build their attention mask without them, have no attention at all, or
look ahead: nothing fails, and every loss is wrong. The probe changes one document and compares the
logits of its neighbour.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from hpc_llm.errors import UserError
from hpc_llm.surgery.loading import gathered, takes_positions
from hpc_llm.training.kernels.packed import packed_inputs

__all__ = ["Packing", "keeps_apart", "probe_packing"]

LENGTH = 8  # tokens of a document
NOISE = 8  # times the change by rounding that is not taken for a leak
ALONE = 0.02  # largest relative change between a document alone and packed


@dataclass(frozen=True)
class Packing:
    """What packed documents see of each other."""

    leak: float
    """Largest change of a document's logits when its neighbour changes, relative to the logits."""
    alone: float
    """Largest difference to the logits of the document alone, relative to the logits."""
    apart: bool
    """Whether packing changes nothing but rounding."""


def keeps_apart(model: PreTrainedModel, rows: int = 1) -> bool:
    """Whether packed documents of `model` do not see each other (collective under ZeRO-3)."""
    packing = probe_packing(model, rows)  # also refuses a model that looks ahead
    return takes_positions(model) and packing.apart


@torch.no_grad()
def probe_packing(model: PreTrainedModel, rows: int = 1) -> Packing:
    """Measure what two documents in each of `rows` packed sequences see of each other.

    Collective if `model` is partitioned by ZeRO-3. Raises `UserError` for a model whose logits
    depend on later tokens: it cannot predict the next one.
    """
    rows = min(rows, 2)  # some kernels separate packed documents only at batch size 1
    first, other, second = _documents(model, rows)
    training = model.training
    model.eval()
    try:
        with _gathered_layer_by_layer(model):
            packed, changed = (_logits(model, (a, second)) for a in (first, other))
            alone = _logits(model, (second,))
            apart = [_logits(model, (a,), (second,)) for a in (first, other)]
            later = torch.cat([second[:, :-1], first[:, :1]], dim=1)
            _refuse_looking_ahead(model, alone, _logits(model, (later,)))
    finally:
        model.train(training)
    scale = float(alone.abs().max()) or 1.0
    leak = float((packed - changed)[:, LENGTH:].abs().max()) / scale
    noise = float((apart[0] - apart[1])[rows:].abs().max()) / scale
    moved = float((packed[:, LENGTH:] - alone).abs().max()) / scale
    rounding = torch.finfo(model.dtype).eps
    limit = max(NOISE * noise, 4 * rounding)
    near = max(ALONE, NOISE * rounding)
    return Packing(leak=leak, alone=moved, apart=leak <= limit and moved <= near)


def _documents(model: PreTrainedModel, rows: int) -> list[torch.Tensor]:
    """Return three different documents (rows, LENGTH) of tokens."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    generator = torch.Generator().manual_seed(1)
    shape = (3, rows, LENGTH)
    tokens = torch.randint(vocabulary // 4, vocabulary, shape, generator=generator)
    return list(tokens.to(model.device))


def _logits(model: PreTrainedModel, *rows: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return fp32 logits; each of `rows` holds documents that are packed into one sequence."""
    tokens = torch.cat([torch.cat(documents, dim=1) for documents in rows])
    position = torch.arange(LENGTH, device=tokens.device)
    positions = position.repeat(len(tokens), tokens.shape[1] // LENGTH)
    return model(**packed_inputs(model, tokens, positions)).logits.float()


def _refuse_looking_ahead(
    model: PreTrainedModel, before: torch.Tensor, after: torch.Tensor
) -> None:
    """Raise `UserError` if the last token changes the logits of earlier ones by more than noise."""
    change = float((before - after)[:, :-1].abs().max())
    scale = float(before.abs().max()) or 1.0
    if change > NOISE * torch.finfo(model.dtype).eps * scale:
        raise UserError(
            "model.path",
            model.config.model_type,
            "its logits depend on later tokens (bidirectional attention), so it cannot be trained "
            "to predict the next token",
            'set "is_decoder": true in its config.json if the family has that key, or use a causal '
            "model",
        )


@contextmanager
def _gathered_layer_by_layer(model: torch.nn.Module) -> Iterator[None]:
    """Gather partitioned parameters only while their module runs (collective)."""
    open_layers: list[ExitStack] = []

    def enter(module: torch.nn.Module, inputs: Any) -> None:
        stack = ExitStack()
        stack.enter_context(gathered(_direct(module), write=False))
        open_layers.append(stack)

    def leave(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        open_layers.pop().close()

    with ExitStack() as hooks:
        for module in model.modules():
            if any(hasattr(parameter, "ds_id") for parameter in _direct(module)):
                hooks.callback(module.register_forward_pre_hook(enter).remove)
                hooks.callback(module.register_forward_hook(leave).remove)
        yield


def _direct(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters that a module uses itself; a mixer also reads those of its Conv1d."""
    convolutions = [child for child in module.children() if isinstance(child, torch.nn.Conv1d)]
    return [p for owner in (module, *convolutions) for p in owner.parameters(recurse=False)]
