"""Settings of the vocabulary modes that change a BPE vocabulary of the base."""

from dataclasses import dataclass

from hpc_llm.settings.checks import count

__all__ = ["ExtendSettings", "OptimiseSettings", "SwapSettings"]


@dataclass(kw_only=True)
class ExtendSettings:
    """`extend`, and the new tokens of `optimise` and `swap`: continued training of the BPE."""

    pieces: int = count(10**7)
    """New tokens. `extend` and `optimise` add fewer, so that the vocabulary is a multiple of
    `multiple`."""
    min_count: int = count(10**12)
    """A new token joins two neighbours that occur so often in the target text."""
    scripts: list[str]
    """New tokens are words, or parts of words, of these scripts: Cyrillic, Georgian, Thai."""
    multiple: int = count(10**5)
    """Multiple of the vocabulary's size; GPUs are fast at multiples of 64 or 128."""
    max_characters: int = count(10**12)
    """Characters of each text whose words are counted; of a longer text a random sample."""


@dataclass(kw_only=True)
class OptimiseSettings:
    """`optimise`: rare tokens of the base are removed, then it is extended."""

    keep: int = count(10**7)
    """Tokens that stay at least, special tokens and bytes included."""
    min_count: int = count(10**12)
    """Only tokens that occur less often in target and source text are removed."""


@dataclass(kw_only=True)
class SwapSettings:
    """`swap`: the rarest tokens of the base give their places to new ones."""

    protect: list[str]
    """Tokens with a letter of these scripts stay, however rare: Latin, Han."""
