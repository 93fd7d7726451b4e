"""The arguments of a model's forward pass over packed rows."""

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel

from hpc_llm.surgery.loading import takes_positions

__all__ = ["document_starts", "packed_inputs"]


def packed_inputs(
    causal: PreTrainedModel, input_ids: torch.Tensor, position_ids: torch.Tensor
) -> dict[str, Any]:
    """Return the keyword arguments of `causal` for ids and positions (rows, length).

    Positions restart at 0 in each document. Flash attention (Dao 2023, arXiv 2307.08691) gets the
    borders of the documents, too: transformers finds them in the positions only in a batch of one
    row, and reads them back from the device in every layer.
    """
    inputs: dict[str, Any] = {"input_ids": input_ids, "use_cache": False}
    if not takes_positions(causal):
        return inputs
    inputs["position_ids"] = position_ids
    attention = causal.config.get_text_config()._attn_implementation or ""
    if attention.startswith("flash_attention") and _takes_others(causal):
        inputs |= _borders(position_ids)
    return inputs


def document_starts(position_ids: torch.Tensor) -> torch.Tensor:
    """Return where documents begin in the flattened rows (rows, length), int64 (documents,)."""
    begins = position_ids == 0
    begins[:, 0] = True
    return begins.flatten().nonzero().squeeze(1)


def _borders(position_ids: torch.Tensor) -> dict[str, Any]:
    """Return cumulative lengths of the documents, int32 (documents + 1,), and the longest."""
    starts = document_starts(position_ids)
    ends = torch.cat([starts, starts.new_tensor([position_ids.numel()])])
    borders, longest = ends.to(torch.int32), int(ends.diff().max())
    return {
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _takes_others(causal: PreTrainedModel) -> bool:
    """Whether the model and its body pass further arguments down to attention."""
    forwards = (inspect.signature(module.forward) for module in (causal, causal.get_decoder()))
    kinds = [{p.kind for p in forward.parameters.values()} for forward in forwards]
    return all(inspect.Parameter.VAR_KEYWORD in found for found in kinds)
