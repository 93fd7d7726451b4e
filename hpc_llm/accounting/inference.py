"""Peak memory of one device in evaluation: forward passes without gradients.

Under ZeRO-3 the weights are partitioned among the ranks and gathered layer by layer (Rajbhandari et
al. 2020, ZeRO, arXiv 1910.02054). Activations are those of one layer, an upper bound for layers
like those of Llama; logits are those of `hpc_llm.evaluation.bits_per_byte`.
"""

from dataclasses import dataclass

from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.accounting.memory import BYTES, CONTEXT_BYTES, LIVE_ELEMENTS

__all__ = ["CHUNK_LOGITS", "LOGITS", "InferenceMemory", "inference_memory"]

LOGITS = 2**28  # at most in one forward pass: 1 GiB in fp32
CHUNK_LOGITS = 2**24  # log-softmax of so many at a time: 64 MiB in fp32
FP32 = 4  # bytes


@dataclass(frozen=True, kw_only=True)
class InferenceMemory:
    """Bytes on one device, by part."""

    weights: int
    """Model weights, or this rank's share of them."""
    live_parameters: int
    """Weights gathered at a time by ZeRO-3; 0 if they are not partitioned."""
    activations: int
    """Activations of one layer."""
    logits: int
    """Logits of a forward pass, and the log-softmax of a chunk of them in fp32."""
    context: int
    """CUDA context, an estimate."""

    @property
    def total(self) -> int:
        """The peak: in a layer or at the logits, whichever is higher."""
        held = self.weights + self.live_parameters + self.context
        return held + max(self.activations, self.logits)


def inference_memory(
    arch: Architecture, precision: str, batch_tokens: int, ranks: int
) -> InferenceMemory:
    """Return the peak memory of one of `ranks` that the weights are partitioned over (1: none).

    `batch_tokens` are the tokens of a forward pass, `evaluation.batch_tokens`.
    """
    width, count = BYTES[precision], parameter_count(arch).total
    tokens = min(batch_tokens, max(1, LOGITS // arch.vocab_size))
    inner = arch.ffn_size * (arch.experts_per_token or 1)
    numbers = 3 * arch.hidden_size + 2 * arch.query_size + 2 * arch.kv_size
    numbers += (3 if arch.gated_mlp else 2) * inner
    logits = tokens * arch.vocab_size
    return InferenceMemory(
        weights=width * -(-count // ranks),
        live_parameters=width * min(count, LIVE_ELEMENTS) if ranks > 1 else 0,
        activations=tokens * (width * numbers + FP32 * arch.hidden_size),
        logits=width * logits + 2 * FP32 * min(logits, CHUNK_LOGITS),
        context=CONTEXT_BYTES,
    )
