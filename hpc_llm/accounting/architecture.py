"""The sizes of a Transformer as a few integers, and its parameter count.

All other counts (FLOPs, memory, traffic, money) start here, and none of them needs the weights:
`Architecture.from_config` reads a Hugging Face `config.json`, `Architecture.of` a loaded model.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from hpc_llm.accounting.config_keys import as_written
from hpc_llm.accounting.families import fields_from_config
from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_choice

__all__ = ["Architecture", "ParameterCount", "parameter_count"]

KINDS = ("decoder", "encoder", "encoder-decoder")
SIZES = ("hidden_size", "num_layers", "num_heads", "ffn_size", "vocab_size")
COUNTS = (
    "max_positions",
    "num_experts",
    "experts_per_token",
    "encoder_layers",
    "norms_per_layer",
    "other_norms",
    "extra_parameters",
    "sliding_window",
)


def _require_whole(key: str, value: object, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise UserError(key, value, f"must be an integer, {least} or above")


@dataclass(frozen=True)
class Architecture:
    """Sizes of a Transformer. Defaults are those of Llama: gated, rotary, without biases.

    Raises `UserError` for sizes below 1, heads that do not divide and inconsistent counts.
    """

    hidden_size: int
    """h: width of the residual stream."""
    num_layers: int
    """Layers; in an encoder-decoder those of the decoder."""
    num_heads: int
    """Query heads."""
    ffn_size: int
    """Inner size of the MLP, in a mixture of experts that of one expert."""
    vocab_size: int
    """Rows of the input embedding."""
    num_kv_heads: int | None = None
    """Key and value heads; None: as many as query heads."""
    head_dim: int | None = None
    """Size of one head; None: hidden_size / num_heads."""
    gated_mlp: bool = True
    """Three matrices (gate, up, down) instead of two."""
    tied_embeddings: bool = False
    """The LM head is the input embedding."""
    max_positions: int = 0
    """Rows of learned position (and token type) tables; 0: rotary, ALiBi or relative."""
    num_experts: int = 0
    """Experts of each layer; 0: dense."""
    experts_per_token: int = 0
    """Experts that one token is routed to; 0: dense."""
    kind: str = "decoder"
    """decoder | encoder (bidirectional attention, masked LM) | encoder-decoder."""
    _: KW_ONLY
    fused_qkv: bool = False
    """One matrix for queries, keys and values; matters for adapters only."""
    parallel_residual: bool = False
    """The MLP reads the input of the layer, in parallel with the attention."""
    qkv_bias: bool = False
    """Biases of queries, keys and values."""
    output_bias: bool = False
    """Bias of the output projection of the attention."""
    mlp_bias: bool = False
    """Biases of the MLP."""
    norm_bias: bool = False
    """LayerNorm, with weight and bias, instead of RMSNorm."""
    qk_norm: bool = False
    """Norms of one head's size on queries and keys."""
    norms_per_layer: int = 2
    """Norms in a layer; a decoder layer with cross-attention has one more than this."""
    other_norms: int = 1
    """Norms outside the layers: the final one, those of the embedding."""
    encoder_layers: int = 0
    """Layers of the encoder of an encoder-decoder."""
    extra_parameters: int = 0
    """Parameters of other parts: BERT's pooler, T5's relative position biases."""
    dropout: bool = False
    """A dropout after the MLP, which saves a mask for the backward pass."""
    sliding_window: int = 0
    """Window of layers with sliding-window attention, in tokens; 0: no such layer."""
    sliding_layers: tuple[int, ...] = ()
    """Indices of the layers with sliding-window attention."""

    def __post_init__(self) -> None:
        """Check the sizes and their divisibility."""
        for key in SIZES:
            _require_whole(key, getattr(self, key), 1)
        for key in ("num_kv_heads", "head_dim"):
            if getattr(self, key) is not None:
                _require_whole(key, getattr(self, key), 1)
        require_choice("kind", self.kind, KINDS)
        if self.head_dim is None and self.hidden_size % self.num_heads:
            rule = f"must be a multiple of num_heads={self.num_heads}"
            raise UserError("hidden_size", self.hidden_size, rule, "or set head_dim")
        if self.num_heads % self.kv_heads:
            rule = f"must divide num_heads={self.num_heads}"
            raise UserError("num_kv_heads", self.kv_heads, rule)
        self._check_counts()

    def _check_counts(self) -> None:
        for key in COUNTS:
            _require_whole(key, getattr(self, key), 0)
        if not min(1, self.num_experts) <= self.experts_per_token <= self.num_experts:
            rule = f"must be between 1 and num_experts={self.num_experts}"
            fix = "leave both at 0 for a dense model"
            raise UserError("experts_per_token", self.experts_per_token, rule, fix)
        if (self.kind == "encoder-decoder") != (self.encoder_layers > 0):
            rule = f"must be above 0 for kind=encoder-decoder, else 0; this is kind={self.kind}"
            raise UserError("encoder_layers", self.encoder_layers, rule)
        if any(not 0 <= layer < self.num_layers for layer in self.sliding_layers):
            rule = f"must be indices below num_layers={self.num_layers}"
            raise UserError("sliding_layers", self.sliding_layers, rule)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Architecture":
        """Read a Hugging Face `config.json`.

        Raises `UserError` for an unknown family and invalid sizes, by the names of the file.
        """
        sizes = fields_from_config(config)
        try:
            return cls(**sizes)
        except UserError as error:
            key, rule, fix = (as_written(s, config) for s in (error.key, error.rule, error.fix))
            raise UserError(f"config.json: {key}", error.value, rule, fix) from error

    @classmethod
    def of(cls, model: Any) -> "Architecture":
        """Return the sizes of a loaded transformers model, from its `config`."""
        return cls.from_config(model.config.to_dict())

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def head_size(self) -> int:
        """Size of one head."""
        return self.hidden_size // self.num_heads if self.head_dim is None else self.head_dim

    @property
    def query_size(self) -> int:
        """D: size of all query heads together."""
        return self.num_heads * self.head_size

    @property
    def kv_size(self) -> int:
        """K: size of all key (or value) heads together."""
        return self.kv_heads * self.head_size


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Parameters by part; total = embedding + head + body."""

    total: int
    """All parameters."""
    embedding: int
    """The input embedding."""
    head: int
    """The LM head; 0 where it is the embedding."""
    body: int
    """Everything else, norms and learned positions included."""
    norms: int
    """Norms, a part of `body`."""
    active: int
    """Active per token: `total` without the experts that a token is not routed to."""


def _attention(arch: Architecture) -> int:
    h, D, K = arch.hidden_size, arch.query_size, arch.kv_size
    biases = arch.qkv_bias * (D + 2 * K) + arch.output_bias * h
    return 2 * h * D + 2 * h * K + biases


def _mlp(arch: Architecture) -> int:
    h, F = arch.hidden_size, arch.ffn_size
    inner = 2 if arch.gated_mlp else 1
    return (inner + 1) * h * F + arch.mlp_bias * (inner * F + h)


def parameter_count(arch: Architecture) -> ParameterCount:
    """Count the parameters of the model as transformers builds it, exactly.

    `AutoModelForCausalLM` for a decoder, `AutoModelForSeq2SeqLM` for an encoder-decoder. For an
    encoder `AutoModel`, the published size: with the pooler, without the parts that only the
    masked-LM head has (a transform of h x h, a norm, a bias); an untied head is counted.
    """
    h, attention, mlp = arch.hidden_size, _attention(arch), _mlp(arch)
    norm = 2 * h if arch.norm_bias else h
    experts = max(1, arch.num_experts)
    layers = arch.num_layers + arch.encoder_layers
    cross = arch.num_layers if arch.encoder_layers else 0
    norms = norm * (arch.norms_per_layer * layers + cross + arch.other_norms)
    norms += arch.qk_norm * 2 * arch.head_size * layers
    body = (
        layers * (attention + experts * mlp + arch.num_experts * h)
        + cross * attention
        + norms
        + arch.max_positions * h
        + arch.extra_parameters
    )
    embedding = arch.vocab_size * h
    head = 0 if arch.tied_embeddings else embedding
    total = embedding + head + body
    idle = layers * (arch.num_experts - arch.experts_per_token) * mlp
    return ParameterCount(
        total=total,
        embedding=embedding,
        head=head,
        body=body,
        norms=norms,
        active=total - idle,
    )
