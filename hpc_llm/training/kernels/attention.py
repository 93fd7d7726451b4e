"""Per-document attention of packed sequences on a CPU.

torch's CPU kernel computes attention over a whole sequence and discards what the mask forbids: with
documents of a third of a sequence, five sixths of the work. Here each document attends separately,
like variable-length flash attention on a GPU. Rotary embeddings are applied to queries and keys by
one function instead of six operations and their gradients. The result is the same to rounding.

Under sequence parallelism each rank has a part of every row. All-to-alls exchange parts of the row
for heads around the same attention, which so sees whole documents, on any device (DeepSpeed
Ulysses; Jacobs et al. 2023, arXiv 2309.14509, section 3). DeepSpeed's ZeRO is not told: it sums the
gradients of all ranks, and each rank computes that of its own part.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hpc_llm.training.kernels.packed import document_starts
from hpc_llm.training.kernels.products import product_dtype
from hpc_llm.training.parallel import MODELS

__all__ = ["attend_by_document"]

NAME = "by_document"
Attention = Callable[..., tuple[torch.Tensor, None]]
LAYERS = (
    "LlamaAttention",
    "MistralAttention",
    "MixtralAttention",
    "Qwen2Attention",
)  # no query and key norms


def attend_by_document(
    model: PreTrainedModel, group: torch.distributed.ProcessGroup | None = None
) -> bool:
    """Enable per-document attention if `model` supports it and is on a CPU; return whether it does.

    Forward passes of packed rows then need `position_ids` (rows, length) that restart at 0 in each
    document; those of transformers, (1, length) without any, make each row one document.
    With a `group` on any device: its ranks have a part of each row, and pass the positions of the
    whole rows as `row_positions` too.
    """
    config = model.config.get_text_config()
    able = (
        (model.device.type == "cpu" or group is not None)
        and config._attn_implementation == "sdpa"
        and config.model_type in MODELS
        and not (getattr(config, "use_sliding_window", True) and _window(config))
    )
    if able:
        AttentionInterface.register(NAME, _attention if group is None else _exchanging(group))
        model.set_attn_implementation(NAME)
        for module in model.modules():
            if type(module).__name__ in LAYERS:
                module.forward = MethodType(_attend, module)
    return able


def _window(config: Any) -> int | None:
    return getattr(config, "sliding_window", None)


def _attend(
    module: Any,
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    past_key_values: Any = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention layer forward: (rows, length, d) to (rows, length, d)."""
    if past_key_values is not None:
        return type(module).forward(
            module, hidden_states, position_embeddings, attention_mask, past_key_values, **others
        )
    shape = (*hidden_states.shape[:-1], -1, module.head_dim)
    query = _Rotation.apply(module.q_proj(hidden_states).view(shape), *position_embeddings)
    key = _Rotation.apply(module.k_proj(hidden_states).view(shape), *position_embeddings)
    value = module.v_proj(hidden_states).view(shape)
    attended, _ = ALL_ATTENTION_FUNCTIONS[NAME](
        module,
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attention_mask,
        dropout=module.attention_dropout if module.training else 0.0,
        scaling=module.scaling,
        **others,
    )
    return module.o_proj(attended.flatten(2)), None


class _Rotation(torch.autograd.Function):
    """x cos + r(x) sin, r(x) = (-x2, x1) for halves x1, x2 of a head (Su et al. 2021, section 3.4).

    x (rows, length, heads, d); cos and sin (rows, length, d), each with two equal halves, so the
    backward pass is the rotation by the opposite angle.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _rotated(gradients[0], cos, sin, -1), None, None


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int) -> torch.Tensor:
    y = x * cos[:, :, None]
    half = x.shape[-1] // 2
    angle = sin[:, :, None, :half]
    y[..., :half].addcmul_(x[..., half:], angle, value=-sign)
    y[..., half:].addcmul_(x[..., :half], angle, value=sign)
    return y


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Return (rows, length, heads, d) for `query`, `key`, `value` of (rows, heads, length, d)."""
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    about = (others["position_ids"], others["dropout"], others["scaling"])
    return _by_document(q, k, v, *about), None


def _exchanging(group: torch.distributed.ProcessGroup) -> Attention:
    """Return an attention whose ranks exchange their parts of the rows for their heads."""
    from deepspeed.sequence.layer import DistributedAttention

    size = torch.distributed.get_world_size(group)
    spread = DistributedAttention(_by_document, group, scatter_idx=2, gather_idx=1)

    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        """Return (rows, part, heads, d) for (rows, heads, part, d)."""
        q, k, v = (t.transpose(1, 2) for t in (query, key, value))
        copies = max(1, size // k.shape[2])  # of key-value heads, if there are fewer than ranks
        k, v = (t.repeat_interleave(copies, dim=2) if copies > 1 else t for t in (k, v))
        about = (others["row_positions"], others["dropout"], others["scaling"])
        return spread(q, k, v, 0, None, *about), None

    return attention


def _by_document(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    position_ids: torch.Tensor,
    dropout: float,
    scaling: float,
) -> torch.Tensor:
    """Return the attention within each document, all of (rows, length, heads, d)."""
    lengths = _lengths(position_ids.expand(query.shape[:2]))
    dtype = product_dtype(query)
    parts = [_joined(t.to(dtype)).split(lengths, dim=2) for t in (query, key, value)]
    attended = [
        F.scaled_dot_product_attention(
            q,
            k,
            v,
            dropout_p=dropout,
            scale=scaling,
            is_causal=True,
            enable_gqa=q.shape[1] != k.shape[1],
        ).transpose(1, 2)
        for q, k, v in zip(*parts, strict=True)
    ]
    joined = torch.cat(attended, dim=1).to(query.dtype)  # (1, rows * length, heads, d)
    return joined.view(query.shape)


def _lengths(position_ids: torch.Tensor) -> list[int]:
    """Return the lengths of all documents in (rows, length) positions, in order."""
    starts = document_starts(position_ids)
    return starts.diff(append=starts.new_tensor([position_ids.numel()])).tolist()


def _joined(tensor: torch.Tensor) -> torch.Tensor:
    """Return (rows, length, heads, d) as (1, heads, rows * length, d)."""
    return tensor.flatten(0, 1)[None].transpose(1, 2)
