"""Notes of a plan: conventions, utilisation priors, prices and sources of its numbers."""

from collections.abc import Sequence

from hpc_llm.accounting.hardware import read_catalogue
from hpc_llm.accounting.stage_flops import SOURCES
from hpc_llm.methods import ALL_LAYERS, describe
from hpc_llm.planning.work import Work, overlaps
from hpc_llm.settings import BudgetSettings, HardwareSettings, RunConfig
from hpc_llm.settings.model import LARGE

__all__ = ["plan_notes"]


def _hours(cfg: RunConfig) -> list[str]:
    hardware, cluster = cfg.hardware, cfg.cluster
    if hardware.utilisation_low is None:
        return [
            "hours n/a: no published utilisation of this device; set hardware.utilisation_low "
            "and hardware.utilisation_high"
        ]
    network = "the network between nodes adds to the hours (zero.overlap=false)"
    if overlaps(cfg):
        network = "compute hides the network between nodes in full (low, mid) or by half (high)"
    if cluster.nodes == 1:
        network = "one node, no network"
    elif cluster.link_gb_per_second is None:
        network = "without the network between nodes: set cluster.link_gb_per_second"
    notes = [
        f"time: hardware FLOPs at {hardware.utilisation_high:.0%} to "
        f"{hardware.utilisation_low:.0%} of the peak, goodput {cluster.goodput:.0%}; {network}; "
        "a prior, accurate to about 35 %",
        "hours are those of training: tokenizer, evaluation and queue time are not included",
    ]
    if cfg.train.precision == "fp32" and hardware.precision != "fp32":
        notes.append(
            f"utilisation was measured in {hardware.precision}; it is assumed for fp32 too, where "
            "there is no measurement"
        )
    return notes


def _prices(cfg: RunConfig, catalogue: HardwareSettings) -> str:
    hardware = cfg.hardware
    if hardware.price_low is None:
        return "money n/a: no price; set hardware.price_low and hardware.price_high"
    prices = " to ".join(
        dict.fromkeys(f"{price:.4g}" for price in (hardware.price_low, hardware.price_high))
    )
    text = f"prices: {prices} {hardware.currency} per device-hour, {hardware.price_date}"
    if hardware.currency == catalogue.currency:
        return text
    rate = cfg.budget.rate(hardware.currency) / cfg.budget.rate(catalogue.currency)
    source = _rates_source(cfg.budget, hardware.currency, catalogue.currency)
    return f"{text}; 1 {catalogue.currency} = {rate:.4g} {hardware.currency}: {source}"


def _rates_source(budget: BudgetSettings, *currencies: str) -> str:
    """Return the source of exchange rates; that of `conf/budget/` covers its own rates only."""
    own = read_catalogue("budget")["default"]
    kept = all(budget.rates[name] == own["rates"].get(name) for name in currencies)
    return (
        budget.rates_source
        if kept or budget.rates_source != own["rates_source"]
        else "budget.rates"
    )


def _tokens(cfg: RunConfig) -> str:
    if cfg.plan.tokens is not None:
        return f"tokens: plan.tokens={cfg.plan.tokens:_} for each stage"
    return (
        "tokens: steps x batch_tokens of a stage, or less by its tokens or pf_days; "
        "max_epochs may end a stage sooner"
    )


def _sources(cfg: RunConfig) -> list[str]:
    """Return the mixture of the sources, as far as it is known before their sizes."""
    corpus = cfg.corpus
    if not corpus.sources:
        return []
    total = sum(source.share or 0.0 for source in corpus.sources.values())
    sized = any(source.share is None for source in corpus.sources.values())
    parts = []
    for name, source in corpus.sources.items():
        part = f"{source.repeat:g} x by size" if source.repeat else "by size"
        if source.share is not None:
            part = f"{source.share / (1.0 if sized else total):.3g}"
        known = ", source" if source.language in corpus.source_languages else ""
        parts.append(f"{name} ({source.language}{known}) {part}")
    rest = f"; by size: parts of the rest, temperature {corpus.temperature:g}" if sized else ""
    return [f"shares of the tokens: {', '.join(parts)}{rest}"]


def _counted(works: Sequence[Work]) -> list[str]:
    """Say which FLOPs have no closed form, and what is unknown then."""
    sources = sorted({work.counted.plain.source for work in works if work.counted})
    return [
        f"FLOPs: {SOURCES[source]}; there is no closed form, so its memory is n/a"
        for source in sources
    ]


def _adapters(works: Sequence[Work]) -> list[str]:
    left = {name for work in works if work.counted for name in work.counted.without_adapters}
    if left:
        return [f"experts without adapters: {', '.join(sorted(left))} (stacked weights, no layers)"]
    adapters = (work.method.adapter for work in works if work.arch and work.arch.num_experts)
    if not any(adapter and adapter.targets == ALL_LAYERS for adapter in adapters):
        return []
    return [
        "LoRA on all linear layers of a mixture of experts adapts its attention only: PEFT does "
        "not treat experts as linear layers"
    ]


def _laptop(cfg: RunConfig, works: Sequence[Work]) -> list[str]:
    """Return a warning about training settings for a laptop with a model that is too large."""
    laptop = read_catalogue("train")["default"]
    same = all(
        getattr(cfg.train, key) == laptop[key] for key in ("sequence_length", "batch_tokens")
    )
    large = any(work.parameters.total > LARGE for work in works)
    if not (same and large) or cfg.plan.tokens is not None:
        return []
    return [
        f"train.sequence_length={cfg.train.sequence_length} train.batch_tokens="
        f"{cfg.train.batch_tokens} and the steps are settings for a laptop: add cluster=NAME for "
        "those of GPU nodes"
    ]


def _unmerged(cfg: RunConfig) -> list[str]:
    """Return a note for each stage whose method never merges into a model."""
    return [
        f"stages.{name}: method {cfg.stages[name].method} never merges into a model, so the run "
        f"ends at evaluate/{name}: choose the stages up to it with --stages"
        for name in cfg.adaptation
        if describe(cfg.stages[name].method).merges == "never"
    ]


def plan_notes(asked: RunConfig, cfg: RunConfig, works: Sequence[Work]) -> list[str]:
    """Return the notes of a plan; `cfg` is `asked` as adjusted to the model and the budget."""
    return [
        *_counted(works),
        "GF/token and PF-days: exact FLOPs with causal attention, without recomputation; "
        "hardware: PF-days as executed, with dense attention and recomputation",
        *_hours(cfg),
        _prices(cfg, asked.hardware),
        f"device: {cfg.hardware.source}",
        _tokens(cfg),
        *_sources(cfg),
        *_adapters(works),
        *_laptop(cfg, works),
        *_unmerged(cfg),
    ]
