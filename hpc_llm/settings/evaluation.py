"""Settings of the held-out measurements (`conf/evaluation/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import require_positive

__all__ = ["EvaluationSettings"]


@dataclass(kw_only=True)
class EvaluationSettings:
    """How bits per byte are measured: whole documents, sliding window, each token once."""

    window: int
    """Tokens the model sees at once; never above its own positions."""
    stride: int
    """Tokens by which the window moves on; the rest of it is context."""
    batch_tokens: int
    """Tokens of one forward pass."""
    test_bytes: int
    """Test documents of each language are measured up to this many bytes."""
    tune_bytes: int
    """The same for the tune documents, which are measured once for every phi."""

    def __post_init__(self) -> None:
        """Check the values."""
        for key in ("window", "stride", "batch_tokens", "test_bytes", "tune_bytes"):
            require_positive(f"evaluation.{key}", getattr(self, key))
