"""Trained parameters of a step, and their number.

Freezing changes the cost of a step in ways that `6 N D` ignores: the count of `flops.py` follows
the gradients from the first trained parameter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.errors import UserError
from hpc_llm.methods import ALL_LAYERS, Adapter, trains
from hpc_llm.settings import StageSettings
from hpc_llm.settings.checks import require_positive

__all__ = [
    "LORA_TARGETS",
    "Method",
    "adapted_layers",
    "adapter_parameters",
    "attention_inputs",
    "layer_sizes",
    "mlp_inputs",
    "optimized_parameters",
    "own_names",
    "stage_method",
    "trainable_parameters",
]

LORA_TARGETS = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "qkv_proj",
)
ALIASES = {  # what OPT, GPT-2, GPT-NeoX, BLOOM and BERT call the same layers
    "query": ("q_proj",),
    "key": ("k_proj",),
    "value": ("v_proj",),
    "attention.output.dense": ("o_proj",),
    "intermediate.dense": ("up_proj",),
    "output.dense": ("o_proj", "down_proj"),
    "c_attn": ("qkv_proj",),
    "query_key_value": ("qkv_proj",),
    "out_proj": ("o_proj",),
    "dense": ("o_proj",),
    "fc1": ("up_proj",),
    "c_fc": ("up_proj",),
    "dense_h_to_4h": ("up_proj",),
    "fc2": ("down_proj",),
    "dense_4h_to_h": ("down_proj",),
    "c_proj": ("o_proj", "down_proj"),
}


def own_names(targets: Sequence[str], known: Sequence[str], key: str = "targets") -> list[str]:
    """Return `targets` by the names of a model whose linear layers are `known`.

    A name of Llama's stands for the layer of the same purpose if that has no other (qkv_proj for
    query_key_value). Raises `UserError` with the names of the model.
    """
    same = {
        name: [name] if name in known else [own for own in known if ALIASES.get(own) == (name,)]
        for name in targets
    }
    if missing := [name for name, own in same.items() if not own]:
        rule = "the model has no such linear layer"
        fix = f"use [all], or names out of {', '.join(known)}"
        raise UserError(key, f"[{','.join(missing)}]", rule, fix)
    return [own for name in targets for own in same[name]]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A training method; build it with `Method.full()`, `Method.lora(8)` and so on."""

    name: str
    trains_body: bool = False
    trains_embedding: bool = False
    trains_head: bool = False
    adapter: Adapter | None = None
    """Adapter of the target layers, whose names are out of `LORA_TARGETS`, or all."""
    rows: int | None = None
    """Rows of the embedding and of the head that train; None: all of them."""
    recompute: bool = False
    """Activations are recomputed in the backward pass (gradient checkpointing)."""
    selective: bool = False
    """Only cheap operations are recomputed: outputs of products and attention are kept, but not of
    products over at most `rank` numbers."""

    def recomputing(self, kind: str) -> "Method":
        """Return this method with the recomputation of `train.recompute`."""
        return replace(self, recompute=kind == "full", selective=kind == "selective")

    @property
    def recomputes(self) -> bool:
        """Whether anything is recomputed."""
        return self.recompute or self.selective

    @property
    def rank(self) -> int:
        """LoRA rank; 0: no adapters."""
        return 0 if self.adapter is None else self.adapter.inner

    @property
    def targets(self) -> tuple[str, ...]:
        """Linear layers with adapters; (): all that the model has, or no adapters."""
        return () if self.adapter is None or "all" in self.adapter.targets else self.adapter.targets

    @property
    def label(self) -> str:
        """Label in tables."""
        if self.adapter is None:
            return self.name.replace("_", " ")
        parts = [self.adapter.label, ",".join(self.adapter.targets)]
        extra = [self.trains_embedding * "embedding", self.trains_head * "head"]
        return " + ".join([" ".join(parts), *filter(None, extra)])

    @classmethod
    def full(cls, *, recompute: bool = False) -> "Method":
        """Train all parameters."""
        return cls(
            name="full",
            trains_body=True,
            trains_embedding=True,
            trains_head=True,
            recompute=recompute,
        )

    @classmethod
    def embeddings(cls, *, recompute: bool = False) -> "Method":
        """Train the input embedding and the LM head; freeze the body."""
        return cls(name="embeddings", trains_embedding=True, trains_head=True, recompute=recompute)

    @classmethod
    def input_embeddings(cls, *, recompute: bool = False) -> "Method":
        """Train only the input embedding."""
        return cls(name="input_embeddings", trains_embedding=True, recompute=recompute)

    @classmethod
    def head(cls, *, recompute: bool = False) -> "Method":
        """Train only the LM head. Recomputation makes this 2.9 times as costly and saves little."""
        return cls(name="head", trains_head=True, recompute=recompute)

    @classmethod
    def new_rows(cls, rows: int | None = None, *, recompute: bool = False) -> "Method":
        """Train only `rows` of embedding and head (None: not known yet, counted as all).

        A step costs the same as training all rows.
        """
        return replace(cls.embeddings(recompute=recompute), name="new_rows", rows=rows)

    @classmethod
    def lora(
        cls,
        rank: int,
        targets: str | tuple[str, ...] = "all",
        embeddings: bool = False,
        head: bool = False,
        *,
        recompute: bool = False,
    ) -> "Method":
        """Low-rank adapters (Hu et al. 2021) on `targets`, all else frozen unless said.

        `targets` is "all" or names out of `LORA_TARGETS` and `ALIASES`; raises `UserError` for
        others.
        """
        require_positive("rank", rank)
        chosen = ALL_LAYERS if targets == "all" else tuple(targets)
        adapter = Adapter(
            label=f"LoRA r{rank}", factors=(("in", rank), (rank, "out")), targets=chosen
        )
        return cls(
            name="lora",
            trains_embedding=embeddings,
            trains_head=head,
            adapter=_known(adapter, "targets"),
            recompute=recompute,
        )


def _known(adapter: Adapter, key: str) -> Adapter:
    """Return the adapter with its targets by their names in Llama. `UserError` for others."""
    if "all" in adapter.targets:
        return replace(adapter, targets=ALL_LAYERS)
    chosen = tuple(known for name in adapter.targets for known in ALIASES.get(name, (name,)))
    if not chosen or [name for name in chosen if name not in LORA_TARGETS]:
        known = ", ".join((*LORA_TARGETS, *ALIASES))
        value = f"[{','.join(adapter.targets)}]"
        raise UserError(key, value, "has unknown names", f"use all, or names out of {known}")
    return replace(adapter, targets=chosen)


def attention_inputs(arch: Architecture) -> tuple[str, ...]:
    """Return the linear layers that give queries, keys and values."""
    return ("qkv_proj",) if arch.fused_qkv else ("q_proj", "k_proj", "v_proj")


def mlp_inputs(arch: Architecture) -> tuple[str, ...]:
    """Return the linear layers that read the input of the MLP."""
    return ("gate_proj", "up_proj") if arch.gated_mlp else ("up_proj",)


def layer_sizes(arch: Architecture) -> dict[str, tuple[int, int]]:
    """Return inputs and outputs of the linear layers of one layer, by their names in Llama."""
    h, D, K, F = arch.hidden_size, arch.query_size, arch.kv_size, arch.ffn_size
    outputs = {"qkv_proj": D + 2 * K, "q_proj": D, "k_proj": K, "v_proj": K}
    sizes = {name: (h, outputs[name]) for name in attention_inputs(arch)} | {"o_proj": (D, h)}
    return sizes | {name: (h, F) for name in mlp_inputs(arch)} | {"down_proj": (F, h)}


def adapted_layers(arch: Architecture, method: Method) -> tuple[str, ...]:
    """Return the linear layers that carry an adapter under `method`.

    Experts are not `nn.Linear` in transformers, so PEFT excludes them: "all" are then those of the
    attention. Raises `UserError` for a target that the model does not have.
    """
    if method.adapter is None:
        return ()
    present = tuple(layer_sizes(arch))
    if arch.num_experts:
        present = (*attention_inputs(arch), "o_proj")
    if method.adapter.targets == ALL_LAYERS:
        return present
    absent = [name for name in method.adapter.targets if name not in present]
    if absent:
        raise UserError(
            "targets", f"[{','.join(absent)}]", "this model has no such linear layer",
            f"choose from {', '.join(present)}",
        )  # fmt: skip
    return tuple(name for name in present if name in method.adapter.targets)


def trainable_parameters(arch: Architecture, method: Method) -> int:
    """Count the trainable parameters."""
    held = optimized_parameters(arch, method)
    if method.rows is None:
        return held
    return held // arch.vocab_size * method.rows


def optimized_parameters(arch: Architecture, method: Method) -> int:
    """Count the parameters with a gradient and optimizer states: of embeddings always all rows."""
    count = parameter_count(arch)
    if method.trains_body:
        return count.total
    total = arch.num_layers * adapter_parameters(arch, method)
    if arch.tied_embeddings:
        return total + (method.trains_embedding or method.trains_head) * count.embedding
    return total + method.trains_embedding * count.embedding + method.trains_head * count.head


def adapter_parameters(arch: Architecture, method: Method) -> int:
    """Count the adapter parameters of one layer of the model."""
    if method.adapter is None:
        return 0
    sizes = layer_sizes(arch)
    names = adapted_layers(arch, method)
    return sum(method.adapter.parameters(*sizes[name]) for name in names)


def stage_method(
    stage: StageSettings, *, recompute: bool = False, key: str = "stage", any_names: bool = False
) -> Method:
    """Return the trained parameters of a training stage; `recompute` as in `Method`.

    Raises `UserError` for unknown adapter targets, unless `any_names` are valid: of a family
    without a closed form; `key` is `stages.NAME`.
    """
    found = trains(stage)
    adapter = found.adapter
    return Method(
        name=stage.method,
        trains_body=found.body,
        trains_embedding=found.embedding,
        trains_head=found.head,
        adapter=adapter if adapter is None or any_names else _known(adapter, f"{key}.targets"),
        recompute=recompute,
    )
