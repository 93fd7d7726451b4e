"""Settings of training (`conf/train/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_choice, require_positive
from hpc_llm.settings.hardware import PRECISIONS

__all__ = ["METHODS", "STAGES", "RampSettings", "StageSettings", "TrainSettings"]

METHODS = ("full", "embeddings", "head", "new_rows", "lora")
STAGES = ("pretrain", "full", "embeddings", "head", "new_rows", "lora")
BATCHINGS = ("packed", "grouped")


@dataclass(kw_only=True)
class StageSettings:
    """One training stage: what learns, for how long and how fast."""

    method: str
    """full | embeddings (input rows and LM head) | head | new_rows (of both, those whose pieces
    the base model did not have) | lora."""
    steps: int
    """Optimizer steps at most."""
    tokens: int | None
    """Tokens of text at most; the schedule then runs over tokens. null: no limit."""
    pf_days: float | None
    """Model FLOPs at most, in PF-days; the schedule then runs over FLOPs. null: no limit."""
    max_epochs: float
    """Passes over the training text at most: the stage is as long as the shorter of the two."""
    learning_rate: float | None
    """Peak learning rate; null: learning_rate_times_width / hidden_size."""
    learning_rate_times_width: float
    """The peak rate at width 1: Adam's rate for matrices scales as 1/width (Yang et al. 2022)."""
    embedding_rate_ratio: float
    """Rate of the embeddings beside the adapters or the body, relative to theirs."""
    lora_b_rate_ratio: float
    """Rate of the factors B of adapters, relative to that of A (LoRA+; Hayou et al. 2024, arXiv
    2402.12354, advise about 16)."""
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
        for limit in ("tokens", "pf_days"):
            if getattr(self, limit) is not None:
                require_positive(f"{key}.{limit}", getattr(self, limit))
        if self.tokens is not None and self.pf_days is not None:
            raise UserError(f"{key}.tokens and {key}.pf_days: give one of them, not both")
        if self.learning_rate is not None:
            require_positive(f"{key}.learning_rate", self.learning_rate)
        require_positive(f"{key}.learning_rate_times_width", self.learning_rate_times_width)
        require_positive(f"{key}.embedding_rate_ratio", self.embedding_rate_ratio)
        require_positive(f"{key}.lora_b_rate_ratio", self.lora_b_rate_ratio)
        require_positive(f"{key}.rank", self.rank)
        require_positive(f"{key}.alpha", self.alpha)
        if self.method == "lora" and not self.targets:
            raise UserError(f"{key}.targets=[]: name linear layers, or [all]")


@dataclass(kw_only=True)
class RampSettings:
    """A quantity that grows linearly in the first steps of a stage."""

    start: int | None
    """Its first value, in tokens; null: no growth."""
    steps: int
    """Steps until it has its full value."""

    def check(self, key: str, full: int) -> None:
        """Raise `UserError` for values that cannot be; `full` is the value in the end."""
        if self.start is None:
            return
        require_positive(f"{key}.steps", self.steps)
        if not 0 < self.start <= full:
            raise UserError(f"{key}.start={self.start}: must be above 0 and {full} at most")


@dataclass(kw_only=True)
class TrainSettings:
    """What all training stages share, and the stages by name."""

    sequence_length: int
    """Tokens in a packed row; never above the model's own positions."""
    batch_tokens: int
    """Tokens of one optimizer step over all ranks: rows = batch_tokens / sequence_length."""
    micro_batch_tokens: int | None
    """Tokens of one forward pass on one rank at most; null: no limit, no accumulation."""
    batching: str
    """packed (whole documents side by side) | grouped (one document a row, those of a step of
    similar length, padded to the longest: for models that cannot keep packed ones apart)."""
    replay: float
    """Share of the tokens that comes from the source language, in the stages that adapt."""
    sequence_warmup: RampSettings
    """Rows grow from `start` tokens to sequence_length."""
    batch_warmup: RampSettings
    """Steps grow from `start` tokens to batch_tokens."""
    precision: str
    """fp32 | bf16 | fp16; conf/train takes what `hardware.precision` says."""
    recompute: bool
    """Recompute activations in the backward pass: less memory, about a third more FLOPs."""
    weight_decay: float
    """AdamW weight decay of matrices."""
    embedding_weight_decay: float | None
    """The same of the input rows and the LM head; null: weight_decay. None under new_rows."""
    lora_weight_decay: float | None
    """The same of adapters; null: weight_decay."""
    beta1: float
    """AdamW first moment."""
    beta2: float
    """AdamW second moment."""
    gradient_clipping: float
    """Largest global gradient norm."""
    log_steps: int
    """Steps between two lines of `events.jsonl`."""
    max_hours: float | None
    """Stop with a checkpoint after these hours of one start, to be gone on with; null: never."""
    compile: bool
    """Compile the model with torch.compile: faster steps, a minute before the first."""
    threads: int | None
    """CPU threads of a rank; null: the cores this process may use / the ranks on the node."""
    pretrain: StageSettings
    full: StageSettings
    embeddings: StageSettings
    head: StageSettings
    new_rows: StageSettings
    lora: StageSettings

    def __post_init__(self) -> None:
        """Check the values."""
        require_choice("train.precision", self.precision, PRECISIONS)
        for key in ("sequence_length", "batch_tokens", "gradient_clipping", "log_steps"):
            require_positive(f"train.{key}", getattr(self, key))
        require_choice("train.batching", self.batching, BATCHINGS)
        if not 0 <= self.replay < 1:
            raise UserError(f"train.replay={self.replay}: must be a share, from 0 and below 1")
        if self.max_hours is not None:
            require_positive("train.max_hours", self.max_hours)
        self.sequence_warmup.check("train.sequence_warmup", self.sequence_length)
        self.batch_warmup.check("train.batch_warmup", self.batch_tokens)
        if self.batch_tokens % self.sequence_length:
            raise UserError(
                f"train.batch_tokens={self.batch_tokens}: must be a multiple of "
                f"train.sequence_length={self.sequence_length}"
            )
        for name in STAGES:
            self.stage(name).check(f"train.{name}")
        if self.batching == "grouped" and (self.sequence_warmup.start or self.batch_warmup.start):
            raise UserError(
                "train.batching=grouped: steps are made of documents of one length, which "
                "train.sequence_warmup and train.batch_warmup would divide; give packed, or no "
                "warm-up"
            )
        growing = self.sequence_warmup.start or self.batch_warmup.start
        if self.compile and (growing or self.batching == "grouped"):
            raise UserError(
                "train.compile=true: batches of changing shape (train.sequence_warmup, "
                "train.batch_warmup, train.batching=grouped) would be compiled anew for each; give "
                "one of them up"
            )
        if self.pretrain.method == "new_rows":
            raise UserError(
                "train.pretrain.method=new_rows: no row is new before the transplant; give full"
            )

    def stage(self, name: str) -> StageSettings:
        """The stage called `name`."""
        stage: StageSettings = getattr(self, name)
        return stage
