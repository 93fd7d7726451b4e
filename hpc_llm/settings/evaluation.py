"""Settings of the evaluation on held-out text (`conf/evaluation/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import check_fields, require_positive

__all__ = ["EvaluationSettings"]


@dataclass(kw_only=True)
class EvaluationSettings:
    """How bits per byte are measured: sliding window over whole documents, each token once."""

    window: int
    """Context length in tokens; never above the positions of the model."""
    stride: int
    """Stride of the window in tokens; the rest of it is context."""
    batch_tokens: int
    """Tokens of one forward pass."""
    test_bytes: int
    """Maximum bytes of test documents evaluated per language."""
    tune_bytes: int
    """The same for tune documents, which are evaluated once per phi."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "evaluation")
        for key in ("window", "stride", "batch_tokens", "test_bytes", "tune_bytes"):
            require_positive(f"evaluation.{key}", getattr(self, key))
