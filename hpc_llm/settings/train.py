"""Settings of training (`conf/train/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, count, number, positive, require_choice
from hpc_llm.settings.hardware import PRECISIONS

__all__ = ["DefaultSteps", "RampSettings", "TrainSettings"]

BATCHINGS = ("packed", "grouped")
RECOMPUTATIONS = ("none", "selective", "full")


@dataclass(kw_only=True)
class RampSettings:
    """A linear warm-up of a quantity over the first steps of a stage."""

    start: int | None = count(10**12)
    """Initial value in tokens; null: no warm-up."""
    steps: int = count(10**12)
    """Steps until the full value."""

    def check(self, key: str, full: int) -> None:
        """Raise `UserError` for invalid values; `full` is the final value."""
        if self.start is None:
            return
        if not 0 < self.start <= full:
            raise UserError(f"{key}.start", self.start, f"must be above 0 and at most {full}")


@dataclass(kw_only=True)
class DefaultSteps:
    """Default lengths of stages in optimizer steps, by what they train."""

    embeddings: int = count(10**12)
    """Stages that train only embeddings or the LM head."""
    adapter: int = count(10**12)
    """Stages that train an adapter."""
    full: int = count(10**12)
    """Stages that train everything."""


@dataclass(kw_only=True)
class TrainSettings:
    """Settings of all training stages, unless a stage overrides them."""

    sequence_length: int = count(10**8)
    """Tokens in a packed sequence; never above the model's own positions."""
    batch_tokens: int = count(10**12)
    """Tokens of one optimizer step over all ranks: batch_tokens / sequence_length sequences."""
    micro_batch_tokens: int | None = count(10**12)
    """Maximum tokens per forward pass of one rank; less than its share of the batch means gradient
    accumulation. null: no limit."""
    batching: str
    """packed (whole documents side by side) | grouped (one document per sequence, documents of
    similar length in a step, padded to the longest: for models that cannot separate packed
    documents)."""
    replay: float = number(0, 1, below=True)
    """Share of source-language tokens in the adaptation stages (replay)."""
    sequence_warmup: RampSettings
    """Warm-up of the sequence length, from `start` to sequence_length tokens."""
    batch_warmup: RampSettings
    """Warm-up of the batch size, from `start` to batch_tokens tokens."""
    precision: str
    """fp32 | bf16 | fp16; conf/train defaults to `hardware.precision`."""
    recompute: str
    """Activations recomputed in the backward pass: none | selective (norms, rotations, activation
    functions: about half the memory, hardly more FLOPs) | full (layers: least memory, about a third
    more FLOPs). false and true are none and full."""
    weight_decay: float = number(0, 1e3)
    """AdamW weight decay of matrices."""
    embedding_weight_decay: float | None = number(0, 1e3)
    """Weight decay of the input embedding and the LM head; null: weight_decay. 0 for new_rows."""
    lora_weight_decay: float | None = number(0, 1e3)
    """Weight decay of adapters; null: weight_decay."""
    beta1: float = number(0, 1, below=True)
    """AdamW beta1 (first moment)."""
    beta2: float = number(0, 1, below=True)
    """AdamW beta2 (second moment)."""
    gradient_clipping: float = positive(1e10)
    """Maximum global gradient norm."""
    log_steps: int = count(10**9)
    """Steps between log lines and `train` events."""
    max_hours: float | None = positive(1e6)
    """Save a checkpoint and stop after this many hours of one start; null: never."""
    compile: bool
    """Compile the model with torch.compile: faster steps, a minute before the first."""
    threads: int | None = count(10**5)
    """CPU threads per rank; null: usable cores / ranks on the node."""
    steps: DefaultSteps
    """Default lengths of stages, referenced in conf/method/."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_choice("train.precision", self.precision, PRECISIONS)
        check_fields(self, "train")
        require_choice("train.batching", self.batching, BATCHINGS)
        switch = {"false": "none", "true": "full"}
        self.recompute = switch.get(self.recompute.lower(), self.recompute)
        require_choice("train.recompute", self.recompute, RECOMPUTATIONS)
        if self.compile and self.recompute == "selective":
            raise UserError(
                "train.recompute",
                "selective",
                "torch.compile itself chooses what to recompute in a layer",
                "use train.recompute=none, or train.compile=false",
            )
        self.sequence_warmup.check("train.sequence_warmup", self.sequence_length)
        self.batch_warmup.check("train.batch_warmup", self.batch_tokens)
        if self.batch_tokens % self.sequence_length:
            fitting = max(1, self.batch_tokens // self.sequence_length) * self.sequence_length
            raise UserError(
                "train.batch_tokens",
                self.batch_tokens,
                f"must be a multiple of train.sequence_length={self.sequence_length}",
                f"use {fitting}",
            )
        self._check_shapes()

    def micro_rows(self, share: int) -> int:
        """Return the sequences per forward pass of a rank with `share` sequences per step.

        The largest divisor of `share` within `micro_batch_tokens`, so that all micro-batches of a
        step have equal size. Raises `UserError` if a micro-batch cannot hold a sequence.
        """
        limit = share
        if self.micro_batch_tokens is not None:
            limit = min(share, self.micro_batch_tokens // self.sequence_length)
        if limit < 1:
            raise UserError(
                "train.micro_batch_tokens",
                self.micro_batch_tokens,
                f"must be at least train.sequence_length={self.sequence_length}",
                f"use train.micro_batch_tokens={self.sequence_length}",
            )
        return max(size for size in range(1, limit + 1) if share % size == 0)

    def _check_shapes(self) -> None:
        """Raise `UserError` for changing batch shapes where they are not supported."""
        growing = [
            f"train.{name}.start={ramp.start}"
            for name, ramp in (
                ("sequence_warmup", self.sequence_warmup),
                ("batch_warmup", self.batch_warmup),
            )
            if ramp.start
        ]
        if self.batching == "grouped" and growing:
            raise UserError(
                "train.batching",
                self.batching,
                f"a step has documents of similar length, which {growing[0]} would split",
                "use train.batching=packed, or no warm-up",
            )
        if self.compile and (growing or self.batching == "grouped"):
            changing = growing[0] if growing else f"train.batching={self.batching}"
            raise UserError(
                "train.compile",
                "true",
                f"{changing} changes the shape of batches, and each shape is compiled again",
                "use only one of the two",
            )
