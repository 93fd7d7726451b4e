"""`hpc-llm plan plan.table=NAME`: published tables and claims, next to recomputed values."""

from collections.abc import Callable
from fractions import Fraction

from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.accounting.columns import columns, figure
from hpc_llm.accounting.hardware import device, read_catalogue
from hpc_llm.planning.published import (
    MPT_TOKENS_PER_SECOND,
    PUBLISHED_TRAINING,
    half_up,
    inference_devices,
    lecture_memory,
    tokenizer_saving,
    training_devices,
)
from hpc_llm.settings.plan import TABLES

__all__ = ["published_table"]

DAY, YEAR_HOURS = 86_400, 8_766
CONTEXT_GB = 1.0  # CUDA context of the textbook example
MEASURED_GB = (11.0, 5.7)  # its measurements for training all of OPT-1.3B, and 0.2M parameters


def _catalogue_model(name: str) -> Architecture:
    return Architecture.from_config(read_catalogue("model")[name]["architecture"])


def _training() -> list[str]:
    heads = ["model", "N", "tokens", "FLOPs", "published", "PF-days", "published"]
    rows = [
        [
            row.name,
            f"{row.parameters / 1e6:,.0f}M",
            f"{row.tokens / 1e9:,.0f}B",
            half_up(row.flops),
            row.published_flops,
            half_up(row.pf_days),
            row.published_pf_days,
        ]
        for row in PUBLISHED_TRAINING
    ]
    return [
        "6 N D (Brown et al. 2020, arXiv 2005.14165, table D.1); PF-day = 8.64e19 FLOPs; halves up",
        *columns([heads, *rows]),
    ]


def _memory() -> list[str]:
    opt, length = _catalogue_model("opt-1.3b"), 512
    count = parameter_count(opt).total
    heads = ["GB", "lecture, full", "exact, full", "lecture, 0.2M train", "exact, 0.2M train"]
    cells = [
        lecture_memory(opt, trainable, length, heads=exact)
        for trainable in (count, 200_000)
        for exact in (False, True)
    ]
    rows = [[part, *(figure(cell[part] / 1e9) for cell in cells)] for part in cells[0]]
    rows.append(["context", *(figure(CONTEXT_GB) for _ in cells)])
    rows.append(["sum", *(figure(sum(cell.values()) / 1e9 + CONTEXT_GB) for cell in cells)])
    return [
        f"OPT-1.3B, N = {count:,} (tied), 16 bits, one sequence of {length} tokens",
        *columns([heads, *rows]),
        "lecture: hidden states 2 L (20 h s + 3 s^2); exact: 2 L (20 h s + 3 a s^2), as each of "
        f"the a = {opt.num_heads} heads has its own scores",
        f"errata: an fp32 copy of the gradients is 4 N = {4 * count / 1e9:.2f} GB, not 10.2",
        *_measured(cells[1], cells[3]),
    ]


def _measured(full: dict[str, float], frozen: dict[str, float]) -> list[str]:
    """Compare parts of the exact columns with the measured memory."""
    parts = ("weights", "Adam", "hidden states")
    near = [sum(cell[part] for part in parts) / 1e9 + CONTEXT_GB for cell in (full, frozen)]
    last = near[0] + (full["gradients"] - full["hidden states"]) / 1e9
    return [
        f"measured: {MEASURED_GB[0]} and {MEASURED_GB[1]} GB; exact without the gradients: "
        f"{near[0]:.2f} and {near[1]:.2f} GB (within 3 %), at the end of the forward pass",
        "  our reading: the method of measurement is unknown, and the sum of all parts is not the "
        "peak, as hidden states are freed while gradients are computed; with all gradients it is "
        f"{last:.2f} GB, {last / MEASURED_GB[0] - 1:.0%} above",
    ]


def _inference() -> list[str]:
    heads = ["model", "smallest", "recommended A100-80", "training (states), A100-80"]
    rows = []
    for billions in (7, 13, 33, 70):
        smallest, recommended = inference_devices(billions * 10**9)
        rows.append(
            [f"{billions}B", smallest, str(recommended), str(training_devices(billions * 10**9))]
        )
    return [
        "16-bit inference: smallest holds 1.1 x 2 N; recommended is half full at most; training "
        "holds 16 N",
        *columns([heads, *rows]),
    ]


def _claims() -> list[str]:
    a100, v100 = device("a100_sxm_80gb"), device("v100_sxm2_32gb")
    seconds = 43 * DAY
    rate = 512 * a100.peak_flops_per_second("bf16")
    hours = 512 * 43 * 24
    flops = float(PUBLISHED_TRAINING[-1].published_flops)  # 3.14E+23, as the sentences have it
    years = flops / 28e12 / 3600 / YEAR_HOURS
    solar = tokenizer_saving(_catalogue_model("solar-10.7b"), 128_000, (135, 100), 4096)
    rows = [
        ["GPT-3 on 512 V100: 7 months", f"{288 * 12 / 512:.2f} months"],
        ["  288 V100-years (Narayanan et al. 2021) x 12 / 512", ""],
        ["GPT-3 on 512 A100: 43 days", f"{flops / rate / seconds:.1%} of the peak"],
        [
            f"  6 N D = {flops:.3G} over {figure(a100.peak_tflops['bf16'])} TFLOP/s each",
            f"{hours:,} GPU-hours",
        ],
        ["  RUB 70M for that", f"{70e6 / hours:.1f} RUB a GPU-hour"],
        ["GPT-3 on Volta-1: 112 months", f"{Fraction(7 * 512, 32)} months"],
        ["  7 x 512 / 32: its 32 V100 are inferred from this", ""],
        ["GPT-3 for $4.6M", f"${355 * YEAR_HOURS * 1.5 / 1e6:.2f}M"],
        ["  355 V100-years at 28 TFLOP/s and $1.5 an hour", f"{years:.0f} V100-years"],
        [
            f"  28 TFLOP/s is {28 / v100.peak_tflops['fp16']:.0%} of a V100's peak",
            "",
        ],
        ["GPT-3 for $12M", "n/a"],
        ["  a quoted constant: no derivation is known", ""],
        ["InstructGPT: 4.9 PF-days for SFT", f"{4.9 / 3640:.3%} of GPT-3"],
        ["InstructGPT: 60 PF-days for PPO", f"{60 / 3640:.2%} of GPT-3"],
        ["  both are quoted constants; GPT-3 is 3640 PF-days", ""],
        ["Tokenizer of 128k tokens with 1.35 times fewer tokens, SOLAR-10.7B", f"x{solar:.3f}"],
        ['  "35 % fewer" could be x0.741 or x0.65 tokens: count both on one text', ""],
    ]
    return columns([["claim", "computed"], *rows])


def _h100() -> list[str]:
    h100, a100 = device("h100_sxm"), device("a100_sxm_80gb")
    peak = h100.peak_tflops["bf16"] / a100.peak_tflops["bf16"]
    heads = ["", "H100", "A100-80", "ratio", "value at twice the rent"]
    rows = [["peak bf16, TFLOP/s", *_compared(h100.peak_tflops["bf16"], a100.peak_tflops["bf16"])]]
    for size, (fast, slow) in MPT_TOKENS_PER_SECOND.items():
        rows.append([f"MPT-{size}, tokens/s", *_compared(fast, slow)])
    return [
        f'"three times the throughput for twice the rent" is the peak ({peak:.2f}); measured it is '
        "less",
        *columns([heads, *rows]),
        "measured: llm-foundry, training benchmarks of MPT models, bf16",
    ]


def _compared(fast: float, slow: float) -> list[str]:
    ratio = fast / slow
    return [f"{fast:,g}", f"{slow:,g}", f"{ratio:.2f}", f"{ratio / 2:.2f}"]


WRITERS: dict[str, Callable[[], list[str]]] = dict(
    zip(TABLES, (_training, _memory, _inference, _claims, _h100), strict=True)
)


def published_table(name: str) -> str:
    """Return the table `name` (one of `settings.plan.TABLES`) as text."""
    return "\n".join(WRITERS[name]()) + "\n"
