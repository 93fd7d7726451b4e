"""Exact FLOPs of a training step.

A multiply-add counts two FLOPs, a linear layer (i -> o) costs f = 2 i o T for T tokens, a lookup
costs nothing; norms, activation functions and the optimizer are excluded, as is usual. The
backward pass costs f for the gradient of a weight if the weight trains, and f for the gradient of
an input if that input needs one, which it does above the first trainable parameter. The result
equals the count of `torch.utils.flop_counter.FlopCounterMode` for transformers and PEFT with eager
attention. Decoders predict the next token; encoders (BERT, RoBERTa) are masked LMs, with a head
that has a transform of h x h before the matrix over the vocabulary, at every position.

Other conventions are in `flops_per_token`: 6 N (Kaplan et al. 2020, arXiv 2001.08361),
6 N + 12 L D S (Chowdhery et al. 2022, arXiv 2204.02311, appendix B) and that of Megatron-LM
(Narayanan et al. 2021, arXiv 2104.04473, without recomputation).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.accounting.method import (
    Method,
    adapted_layers,
    attention_inputs,
    layer_sizes,
    mlp_inputs,
)
from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_choice, require_positive

__all__ = [
    "CONVENTIONS",
    "PF_DAY",
    "StepFlops",
    "attended_pairs",
    "flops_per_token",
    "pf_days",
    "step_flops",
]

CONVENTIONS = ("exact", "6n", "palm", "megatron")
PF_DAY = 8.64e19  # 10^15 FLOP/s for one day (Brown et al. 2020, arXiv 2005.14165, table D.1)


@dataclass(frozen=True, kw_only=True)
class StepFlops:
    """FLOPs of one optimizer step, as integers."""

    forward: int
    """Of the forward pass."""
    backward: int
    """Of the backward pass, without recomputation."""
    recompute: int
    """The part of the forward pass that runs again in the backward pass."""
    total: int
    """forward + backward + recompute."""

    @property
    def model(self) -> int:
        """Model FLOPs: without recomputation."""
        return self.forward + self.backward


@dataclass(frozen=True)
class _Pass:
    """Inputs of the count that are the same for all layers of a step."""

    arch: Architecture
    method: Method
    tokens: int
    adapted: frozenset[str]
    sizes: dict[str, tuple[int, int]]

    def linear(self, name: str, input_grad: bool) -> tuple[int, int]:
        """Forward and backward FLOPs of one linear layer, its adapter included."""
        inputs, outputs = self.sizes[name]
        cost = 2 * inputs * outputs * self.tokens
        forward, backward = cost, cost * (self.method.trains_body + input_grad)
        if name in self.adapted:
            assert self.method.adapter is not None
            products = self.method.adapter.products(inputs, outputs)
            for place, (a, b) in enumerate(products):
                product = 2 * a * b * self.tokens
                forward += product
                # its factor trains; only the first product reads the input of the layer
                backward += product + product * (input_grad or place > 0)
        return forward, backward

    def trains(self, name: str) -> bool:
        """Whether the layer or its adapter trains, so that its output needs a gradient."""
        return self.method.trains_body or name in self.adapted


def attended_pairs(
    arch: Architecture, lengths: Sequence[int], attention: str = "causal"
) -> list[int]:
    """Count pairs (query, key) in each layer, over documents of these lengths.

    `dense` is every pair, which is what eager attention computes and a counter sees; `causal` is
    l (l + 1) / 2, and min(t, window) for each token t of a sliding-window layer. Attention of an
    encoder is bidirectional: there `causal` is dense too.
    """
    if attention == "dense" or arch.kind == "encoder":
        return [sum(length * length for length in lengths)] * arch.num_layers
    whole = sum(length * (length + 1) // 2 for length in lengths)
    beyond = [max(0, length - arch.sliding_window) for length in lengths]
    sliding = whole - sum(length * (length + 1) // 2 for length in beyond)
    slides = frozenset(arch.sliding_layers)
    return [sliding if layer in slides else whole for layer in range(arch.num_layers)]


def _attention_part(run: _Pass, pairs: int, input_grad: bool) -> tuple[int, int, bool]:
    """Forward, backward and whether the output needs a gradient; `pairs` of this layer."""
    names = attention_inputs(run.arch)
    costs = [run.linear(name, input_grad) for name in names]
    needs = [input_grad or run.trains(name) for name in names]
    queries, keys, values = needs * 3 if len(needs) == 1 else needs
    product = 2 * pairs * run.arch.query_size  # one of Q K^T, P V, dP, dV, dQ, dK
    costs.append((2 * product, product * (queries + keys + values + (queries or keys))))
    output_grad = any(needs)
    costs.append(run.linear("o_proj", output_grad))
    output_grad = output_grad or run.trains("o_proj")
    return sum(c[0] for c in costs), sum(c[1] for c in costs), output_grad


def _mlp_part(run: _Pass, input_grad: bool) -> tuple[int, int, bool]:
    inner = mlp_inputs(run.arch)
    costs = [run.linear(name, input_grad) for name in inner]
    output_grad = input_grad or any(run.trains(name) for name in inner)
    costs.append(run.linear("down_proj", output_grad))
    output_grad = output_grad or run.trains("down_proj")
    copies = run.arch.experts_per_token or 1
    forward, backward = (copies * sum(part) for part in zip(*costs, strict=True))
    router = 2 * run.tokens * run.arch.hidden_size * run.arch.num_experts
    return forward + router, backward + router * (run.method.trains_body + input_grad), output_grad


def _not_recomputed(run: _Pass) -> int:
    """The last matmul of a layer: recomputation stops before it, as nothing after it is saved.

    Gemma 2 and encoders have a norm after it, OPT and GPT-2 a dropout, a mixture of experts weights
    its outputs: there it is recomputed.
    """
    arch = run.arch
    if arch.kind == "encoder" or arch.norms_per_layer > 2 or arch.num_experts or arch.dropout:
        return 0
    if "down_proj" in run.adapted:
        assert run.method.adapter is not None
        products = run.method.adapter.products(arch.ffn_size, arch.hidden_size)
        if products:
            inputs, outputs = products[-1]
            return 2 * inputs * outputs * run.tokens
    return 2 * arch.hidden_size * arch.ffn_size * run.tokens


def _second_factors(run: _Pass) -> int:
    """The products over at most `rank` numbers in a layer, which selective recomputation repeats.

    That of `down_proj` is not repeated where nothing after it is saved.
    """
    if run.method.adapter is None:
        return 0
    copies, inside = run.arch.experts_per_token or 1, (*mlp_inputs(run.arch), "down_proj")
    total = 0
    for name in run.adapted:
        inputs, outputs = run.sizes[name]
        products = run.method.adapter.products(inputs, outputs)
        cost = sum(2 * a * b * run.tokens for a, b in products if a <= run.method.rank)
        if name == "down_proj" and _not_recomputed(run):
            a, b = products[-1]
            cost -= 2 * a * b * run.tokens * (a <= run.method.rank)
        total += cost * (copies if name in inside else 1)
    return total


def _head_part(run: _Pass, input_grad: bool) -> tuple[int, int]:
    """Forward and backward FLOPs of the head; `input_grad`: whether its input needs a gradient."""
    arch, method = run.arch, run.method
    trains = method.trains_head or (arch.tied_embeddings and method.trains_embedding)
    head = 2 * run.tokens * arch.hidden_size * arch.vocab_size
    if arch.kind != "encoder":
        return head, head * (trains + input_grad)
    transform = 2 * run.tokens * arch.hidden_size**2  # trains with the body
    below = method.trains_body or input_grad
    return transform + head, transform * (method.trains_body + input_grad) + head * (trains + below)


def _require_one_stack(arch: Architecture) -> None:
    if arch.kind == "encoder-decoder":
        fix = "use convention=6n, which only needs the number of parameters"
        raise UserError("kind", arch.kind, "only decoders and encoders are counted", fix)


def _check(arch: Architecture, batch_size: int, sequence_length: int, attention: str) -> None:
    _require_one_stack(arch)
    require_positive("batch_size", batch_size)
    require_positive("sequence_length", sequence_length)
    require_choice("attention", attention, ("dense", "causal"))


def step_flops(
    arch: Architecture,
    method: Method,
    batch_size: int,
    sequence_length: int,
    attention: str = "dense",
    document_lengths: Sequence[int] | None = None,
) -> StepFlops:
    """Count one step over `batch_size` sequences of `sequence_length` tokens.

    `attention` is dense (what a counter sees) or causal (what a decoder needs; an encoder needs
    the dense one); `document_lengths` are those of all sequences together, where attention stays
    inside a document. `forward` alone is the cost of evaluation. Raises `UserError` for lengths
    with another sum and for an encoder-decoder.
    """
    _check(arch, batch_size, sequence_length, attention)
    tokens = batch_size * sequence_length
    lengths = [sequence_length] * batch_size if document_lengths is None else document_lengths
    require_positive("document_lengths", min(lengths, default=0))
    if sum(lengths) != tokens:
        rule = f"sum to {sum(lengths)}, must sum to batch_size * sequence_length = {tokens}"
        raise UserError("document_lengths", None, rule, "count padding as a document")
    run = _Pass(arch, method, tokens, frozenset(adapted_layers(arch, method)), layer_sizes(arch))
    embedding_trains = method.trains_embedding or (arch.tied_embeddings and method.trains_head)
    needs_grad = embedding_trains or method.recomputes  # checkpointing forces it on
    forward = backward = 0
    for pairs in attended_pairs(arch, lengths, attention):
        scores = _attention_part(run, pairs, needs_grad)
        mlp = _mlp_part(run, needs_grad or (scores[2] and not arch.parallel_residual))
        needs_grad = needs_grad or scores[2] or mlp[2]
        forward += scores[0] + mlp[0]
        backward += scores[1] + mlp[1]
    again = (forward - arch.num_layers * _not_recomputed(run)) if method.recompute else 0
    if method.selective:
        again = arch.num_layers * _second_factors(run)
    head = _head_part(run, needs_grad)
    forward += head[0]
    backward += head[1]
    return StepFlops(
        forward=forward, backward=backward, recompute=again, total=forward + backward + again
    )


def flops_per_token(
    arch: Architecture, method: Method, sequence_length: int, convention: str = "exact"
) -> float:
    """Return the training FLOPs of one token by a named convention.

    `exact` is causal (dense for an encoder) and excludes recomputation (`StepFlops.model`); the
    others are formulas for full training and ignore `method`.
    """
    require_choice("convention", convention, CONVENTIONS)
    if convention == "exact":
        step = step_flops(arch, method, 1, sequence_length, attention="causal")
        return step.model / sequence_length
    require_positive("sequence_length", sequence_length)
    count = parameter_count(arch)
    scores = arch.num_layers * arch.query_size * sequence_length
    if convention == "6n":
        return 6.0 * count.active
    _require_one_stack(arch)
    if convention == "palm":
        return 6.0 * count.active + 12.0 * scores
    sizes = {name: inputs * outputs for name, (inputs, outputs) in layer_sizes(arch).items()}
    mlp = sum(sizes.pop(name) for name in (*mlp_inputs(arch), "down_proj"))
    experts = (arch.experts_per_token or 1) * mlp + arch.hidden_size * arch.num_experts
    body = arch.num_layers * (sum(sizes.values()) + experts)
    reach = 12.0 if arch.kind == "encoder" else 6.0  # all pairs, or half of them
    return 6.0 * (body + arch.hidden_size * arch.vocab_size) + reach * scores


def pf_days(flops: float) -> float:
    """Convert FLOPs to petaFLOP/s-days: 8.64e19 FLOPs each."""
    return flops / PF_DAY
