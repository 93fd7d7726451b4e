"""Published numbers of training cost, recomputed: those that are widely cited.

Each function returns the exact value; `plan.table=NAME` prints it next to the published one, with
errata.
"""

import math
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Context, Decimal

from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.accounting.flops import PF_DAY, step_flops
from hpc_llm.accounting.method import Method
from hpc_llm.settings.checks import require_positive

__all__ = [
    "MPT_TOKENS_PER_SECOND",
    "PUBLISHED_TRAINING",
    "PublishedTraining",
    "half_up",
    "inference_devices",
    "lecture_memory",
    "tokenizer_saving",
    "training_devices",
]

MILLION, BILLION = 10**6, 10**9


@dataclass(frozen=True)
class PublishedTraining:
    """One row of table D.1 of Brown et al. 2020 (arXiv 2005.14165)."""

    name: str
    """Name of the model."""
    parameters: int
    """As in the table; the names are rounded (2.7B is 2.65e9)."""
    tokens: int
    """Training tokens."""
    published_pf_days: str
    """PF-days as printed in the table."""
    published_flops: str
    """FLOPs as printed in the table."""

    @property
    def flops(self) -> int:
        """Training FLOPs: 6 N D."""
        return 6 * self.parameters * self.tokens

    @property
    def pf_days(self) -> Decimal:
        """Training FLOPs in petaFLOP/s-days, exact."""
        return Decimal(self.flops) / Decimal(int(PF_DAY))


def _trained(name: str, millions: int, billions: int, cells: str) -> PublishedTraining:
    days, flops = cells.split()
    return PublishedTraining(name, millions * MILLION, billions * BILLION, days, flops)


PUBLISHED_TRAINING = (
    _trained("BERT-Base", 109, 250, "1.89E+0 1.64E+20"),
    _trained("BERT-Large", 355, 250, "6.16E+0 5.33E+20"),
    _trained("RoBERTa-Base", 125, 2000, "1.74E+1 1.50E+21"),
    _trained("RoBERTa-Large", 355, 2000, "4.93E+1 4.26E+21"),
    _trained("GPT-3 Small", 125, 300, "2.60E+0 2.25E+20"),
    _trained("GPT-3 Medium", 356, 300, "7.42E+0 6.41E+20"),
    _trained("GPT-3 Large", 760, 300, "1.58E+1 1.37E+21"),
    _trained("GPT-3 XL", 1320, 300, "2.75E+1 2.38E+21"),
    _trained("GPT-3 2.7B", 2650, 300, "5.52E+1 4.77E+21"),
    _trained("GPT-3 6.7B", 6660, 300, "1.39E+2 1.20E+22"),
    _trained("GPT-3 13B", 12850, 300, "2.68E+2 2.31E+22"),
    _trained("GPT-3 175B", 174600, 300, "3.64E+3 3.14E+23"),
)

# llm-foundry, training benchmarks of MPT, bf16: tokens per second and GPU on (H100, A100-80)
MPT_TOKENS_PER_SECOND = {
    "7B": (10643, 4641),
    "13B": (4792, 2262),
    "30B": (2002, 916),
    "70B": (1039, 410),
}


def half_up(value: Decimal | int, digits: int = 3) -> str:
    """Format with `digits` significant digits, halves rounded up: 5.325e20 is 5.33E+20.

    Binary rounding would print 5.32E+20.
    """
    rounded = Context(prec=digits, rounding=ROUND_HALF_UP).create_decimal(value)
    return f"{rounded:.{digits - 1}E}"


def lecture_memory(
    arch: Architecture, trainable: int, length: int, heads: bool
) -> dict[str, float]:
    """Return the bytes of 16-bit training of one sequence, by the textbook formula, by part.

    Hidden states are 2 L (20 h s + 3 s^2); with `heads` 2 L (20 h s + 3 a s^2), as every head has
    its own scores. Weights 2 N, gradients 2 Nt, two 16-bit moments 4 Nt. The CUDA context is not
    included.
    """
    require_positive("sequence_length", length)
    scores = 3 * length**2 * (arch.num_heads if heads else 1)
    return {
        "weights": 2 * parameter_count(arch).total,
        "gradients": 2 * trainable,
        "Adam": 4 * trainable,
        "hidden states": 2 * arch.num_layers * (20 * arch.hidden_size * length + scores),
    }


def inference_devices(parameters: int) -> tuple[str, int]:
    """Return the smallest machine for 16-bit inference, and a recommended number of A100-80.

    Smallest: 1.1 x 2 N bytes fit into an RTX 4090 (24 GB) or 1, 2, 4, 8 A100-80. Recommended: the
    weights fill half of the memory at most, on a power of two of A100-80.
    """
    require_positive("parameters", parameters)
    needed, sizes = 2 * parameters * 1.1, [1, 2, 4, 8, 16, 32, 64]
    smallest = next((n for n in sizes if needed <= n * 80e9), sizes[-1])
    recommended = next((n for n in sizes if 2 * parameters <= n * 40e9), sizes[-1])
    return "RTX 4090" if needed <= 24e9 else f"{smallest} A100-80", recommended


def training_devices(parameters: int) -> int:
    """Return the number of A100-80 that hold the states of training: 16 N bytes."""
    return math.ceil(16 * parameters / 80e9)


def tokenizer_saving(
    arch: Architecture, vocab_size: int, tokens: tuple[int, int], sequence_length: int
) -> float:
    """Return the training cost of the same text with another vocabulary, relative to the old one.

    `tokens` are the old and the new count on one text: a third fewer and "35 % better" are not
    the same. The larger head costs more per token: ratio = new / old * f(V new) / f(V old).
    """
    old, new = tokens
    require_positive("tokens", min(tokens))
    per_token = [
        step_flops(shape, Method.full(), 1, sequence_length).total
        for shape in (arch, replace(arch, vocab_size=vocab_size))
    ]
    return new / old * per_token[1] / per_token[0]
