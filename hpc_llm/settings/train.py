"""Settings of training (`conf/train/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_choice, require_positive
from hpc_llm.settings.hardware import PRECISIONS

__all__ = ["METHODS", "STAGES", "StageSettings", "TrainSettings"]

METHODS = ("full", "embeddings", "head", "lora")
STAGES = ("pretrain", "full", "embeddings", "head", "lora")


@dataclass(kw_only=True)
class StageSettings:
    """One training stage: what learns, for how long and how fast."""

    method: str
    """full | embeddings (input rows and LM head) | head | lora."""
    steps: int
    """Optimizer steps at most."""
    max_epochs: float
    """Passes over the training text at most: the stage is as long as the shorter of the two."""
    learning_rate: float | None
    """Peak learning rate; null: learning_rate_times_width / hidden_size."""
    learning_rate_times_width: float
    """The peak rate at width 1: Adam's rate for matrices scales as 1/width (Yang et al. 2022)."""
    embedding_rate_ratio: float
    """Rate of the embeddings beside lora, relative to the adapters' rate."""
    rank: int
    """LoRA rank r."""
    alpha: float
    """LoRA alpha; updates are scaled by alpha / r."""
    targets: list[str]
    """Linear layers that get an adapter, by the last part of their name; [all]: all of the body."""
    train_embeddings: bool
    """lora: train the input rows and the LM head in full beside the adapters."""

    def peak_rate(self, hidden_size: int) -> float:
        """The peak learning rate for a model of this width."""
        if self.learning_rate is not None:
            return self.learning_rate
        return self.learning_rate_times_width / hidden_size

    def check(self, key: str) -> None:
        """Raise `UserError` for values that cannot be; `key` is where the stage stands."""
        require_choice(f"{key}.method", self.method, METHODS)
        require_positive(f"{key}.steps", self.steps)
        require_positive(f"{key}.max_epochs", self.max_epochs)
        if self.learning_rate is not None:
            require_positive(f"{key}.learning_rate", self.learning_rate)
        require_positive(f"{key}.learning_rate_times_width", self.learning_rate_times_width)
        require_positive(f"{key}.embedding_rate_ratio", self.embedding_rate_ratio)
        require_positive(f"{key}.rank", self.rank)
        require_positive(f"{key}.alpha", self.alpha)
        if self.method == "lora" and not self.targets:
            raise UserError(f"{key}.targets=[]: name linear layers, or [all]")


@dataclass(kw_only=True)
class TrainSettings:
    """What all training stages share, and the stages by name."""

    sequence_length: int
    """Tokens in a packed row; never above the model's own positions."""
    batch_tokens: int
    """Tokens of one optimizer step over all ranks: rows = batch_tokens / sequence_length."""
    micro_batch_tokens: int | None
    """Tokens of one forward pass on one rank at most; null: no limit, no accumulation."""
    precision: str
    """fp32 | bf16 | fp16; conf/train takes what `hardware.precision` says."""
    recompute: bool
    """Recompute activations in the backward pass: less memory, about a third more FLOPs."""
    weight_decay: float
    """AdamW weight decay of matrices."""
    beta1: float
    """AdamW first moment."""
    beta2: float
    """AdamW second moment."""
    gradient_clipping: float
    """Largest global gradient norm."""
    log_steps: int
    """Steps between two lines of `events.jsonl`."""
    checkpoint_minutes: float
    """Minutes between two checkpoints."""
    threads: int | None
    """CPU threads of a rank; null: the cores this process may use / the ranks on the node."""
    pretrain: StageSettings
    full: StageSettings
    embeddings: StageSettings
    head: StageSettings
    lora: StageSettings

    def __post_init__(self) -> None:
        """Check the values."""
        require_choice("train.precision", self.precision, PRECISIONS)
        for key in ("sequence_length", "batch_tokens", "gradient_clipping", "log_steps"):
            require_positive(f"train.{key}", getattr(self, key))
        require_positive("train.checkpoint_minutes", self.checkpoint_minutes)
        if self.batch_tokens % self.sequence_length:
            raise UserError(
                f"train.batch_tokens={self.batch_tokens}: must be a multiple of "
                f"train.sequence_length={self.sequence_length}"
            )
        for name in STAGES:
            self.stage(name).check(f"train.{name}")

    def stage(self, name: str) -> StageSettings:
        """The stage called `name`."""
        stage: StageSettings = getattr(self, name)
        return stage
