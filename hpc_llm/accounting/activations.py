"""Activations that a step saves for its backward pass, to the byte for models like Llama.

An operation saves its inputs where the gradient of another input needs them: a linear layer saves
its input if its weight (or adapter) trains, a product saves a factor if the other one needs a
gradient. Fused attention (SDPA, FlashAttention) saves queries, keys, values, its output and one
fp32 number per head. Norms compute in fp32. Verified with
`torch.autograd.graph.saved_tensors_hooks`; for families with LayerNorm, without a gate or with
experts the same rules give an estimate.
"""

from dataclasses import dataclass
from functools import lru_cache

from hpc_llm.accounting.architecture import Architecture
from hpc_llm.accounting.method import Method, adapted_layers, attention_inputs, mlp_inputs

__all__ = ["Activations", "held_activations"]

FP32 = 4  # bytes


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Saved bytes for each token of a micro-batch."""

    layers: int
    """Of all layers until the backward pass; with recomputation their inputs only."""
    one_layer: int
    """Recomputed in the backward pass, one layer at a time; 0 without recomputation."""
    ends: int
    """Rotary tables, the final norm and the head's input."""
    logits: int
    """Log-probabilities in fp32."""

    @property
    def held(self) -> int:
        """Everything held when the loss is computed."""
        return self.layers + self.ends + self.logits


@dataclass(frozen=True)
class _Rules:
    arch: Architecture
    method: Method
    width: int
    adapted: frozenset[str]
    tensor: int

    def trains(self, *names: str) -> bool:
        return self.method.trains_body or not self.adapted.isdisjoint(names)

    def norm(self, needs_grad: bool) -> int:
        """A norm: its input in fp32, the root mean square, and its output if it trains."""
        if not (needs_grad or self.method.trains_body):
            return 0
        h = self.arch.hidden_size
        return FP32 * h + FP32 + self.width * h * self.method.trains_body

    def attention(self, needs_grad: bool) -> tuple[int, bool]:
        """Bytes of the attention half of a layer, and whether its output needs a gradient."""
        arch, inputs = self.arch, self.trains(*attention_inputs(self.arch))
        fused = needs_grad or inputs
        output_grad = fused or self.trains("o_proj")
        numbers = arch.hidden_size * inputs
        if fused:
            numbers += (2 * arch.query_size + 2 * arch.kv_size) // self.tensor
        elif output_grad:
            numbers += arch.query_size // self.tensor
        norms = self.norm(needs_grad) + (arch.norms_per_layer // 2 - 1) * self.norm(output_grad)
        heads = arch.num_heads // self.tensor
        return self.width * numbers + norms + FP32 * heads * fused, output_grad

    def mlp(self, needs_grad: bool) -> tuple[int, bool]:
        """The same for the MLP half."""
        arch, inputs = self.arch, self.trains(*mlp_inputs(self.arch))
        inner = arch.ffn_size * (arch.experts_per_token or 1) // self.tensor
        gate = arch.gated_mlp and (needs_grad or self.trains("gate_proj"))
        up = needs_grad or self.trains("up_proj")
        output_grad = gate or up or self.trains("down_proj")
        kept = 2 * gate + up + self.trains("down_proj")  # before and after silu, up, the product
        norms = self.norm(needs_grad) + (arch.norms_per_layer // 2 - 1) * self.norm(output_grad)
        return self.width * (arch.hidden_size * inputs + inner * kept) + norms, output_grad

    def kept(self) -> int:
        """What selective recomputation keeps in a layer beside its input: outputs of products."""
        arch, adapter = self.arch, self.method.adapter
        numbers = 2 * arch.hidden_size  # of the output and down projections
        numbers += (2 * arch.query_size + 2 * arch.kv_size) // self.tensor
        inner = arch.ffn_size * (arch.experts_per_token or 1) // self.tensor
        numbers += inner * (1 + arch.gated_mlp)
        if adapter is not None:
            numbers += adapter.inner * len(self.adapted)
        return self.width * numbers + FP32 * arch.num_heads // self.tensor

    def layer(self, needs_grad: bool) -> tuple[int, bool]:
        """A whole layer, the intermediate outputs of its adapters included."""
        attention, middle_grad = self.attention(needs_grad)
        below = needs_grad or (middle_grad and not self.arch.parallel_residual)
        mlp, output_grad = self.mlp(below)
        inner = 0 if self.method.adapter is None else self.method.adapter.inner
        adapters = self.width * inner * len(self.adapted)
        return attention + mlp + adapters, needs_grad or middle_grad or output_grad


@lru_cache(maxsize=64)  # the search for what fits repeats its calls
def held_activations(
    arch: Architecture, method: Method, width: int, tensor: int = 1
) -> Activations:
    """Count the bytes that one step saves for each token, in numbers of `width` bytes (2 or 4).

    `tensor` ranks split heads and inner sizes of the layers; each saves the layers' whole inputs.
    Other implementations differ: eager attention adds 6 a S bytes per token in 16 bits.
    """
    rules = _Rules(arch, method, width, frozenset(adapted_layers(arch, method)), tensor)
    tied = arch.tied_embeddings
    needs_grad = method.trains_embedding or (tied and method.trains_head) or method.recomputes
    head_trains = method.trains_head or (tied and method.trains_embedding)
    layers, last = 0, 0
    rotary = False
    for _ in range(arch.num_layers):
        rotary = rotary or needs_grad or rules.trains("q_proj", "k_proj", "qkv_proj")
        last, needs_grad = rules.layer(needs_grad)
        layers += last
    ends = rules.norm(needs_grad) + width * arch.hidden_size * head_trains
    ends += width * 2 * arch.head_size * rotary
    inputs = arch.num_layers * width * arch.hidden_size
    kept = inputs + arch.num_layers * rules.kept() * method.selective
    return Activations(
        layers=kept if method.recomputes else layers,
        one_layer=last if method.recomputes else 0,
        ends=ends,
        logits=FP32 * arch.vocab_size * (needs_grad or head_trains),
    )
