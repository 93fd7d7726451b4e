"""What the figures of a plan rest on, in sentences: conventions, priors, prices, sources."""

from hpc_llm.settings import HardwareSettings, RunConfig

__all__ = ["plan_notes"]


def _hours(cfg: RunConfig) -> str:
    hardware = cfg.hardware
    if hardware.utilisation_low is None:
        return (
            "hours n/a: no published utilisation of this device; give hardware.utilisation_low "
            "and hardware.utilisation_high"
        )
    return (
        f"time: hardware FLOPs at {hardware.utilisation_low:.0%} to "
        f"{hardware.utilisation_high:.0%} of the peak, goodput {cfg.cluster.goodput:.0%}, without "
        "the network between nodes; a prior, good to about 35 %"
    )


def _prices(cfg: RunConfig, catalogue: HardwareSettings) -> str:
    hardware = cfg.hardware
    if hardware.price_low is None:
        return "money n/a: no price; give hardware.price_low and hardware.price_high"
    prices = " to ".join(
        dict.fromkeys(f"{price:.4g}" for price in (hardware.price_low, hardware.price_high))
    )
    text = f"prices: {prices} {hardware.currency} for one device and hour, {hardware.price_date}"
    if hardware.currency == catalogue.currency:
        return text
    rate = cfg.budget.rate(hardware.currency) / cfg.budget.rate(catalogue.currency)
    return (
        f"{text}; 1 {catalogue.currency} = {rate:.4g} {hardware.currency}: "
        f"{cfg.budget.rates_source}"
    )


def _tokens(cfg: RunConfig) -> str:
    if cfg.plan.tokens is not None:
        return f"tokens: plan.tokens={cfg.plan.tokens:_} for each stage"
    return "tokens: train.STAGE.steps x train.batch_tokens; max_epochs may end a stage sooner"


def _warnings(asked: RunConfig, cfg: RunConfig) -> list[str]:
    train, notes = cfg.train, []
    if train.sequence_length != asked.train.sequence_length:
        cure = f"train.sequence_length={train.sequence_length}"
        if train.batch_tokens != asked.train.batch_tokens:
            cure += f" train.batch_tokens={train.batch_tokens}"
        notes.append(
            f"rows of {train.sequence_length:,} tokens, not {asked.train.sequence_length:,}: the "
            f"model takes no longer ones; to train, give {cure}"
        )
    rows, ranks = train.batch_tokens // train.sequence_length, cfg.cluster.devices
    if cfg.hardware.kind == "gpu" and rows % ranks:
        notes.append(
            f"train.batch_tokens={train.batch_tokens}: {rows} rows cannot be divided among {ranks} "
            f"devices; training needs a multiple of {ranks * train.sequence_length}"
        )
    if train.recompute and "head" in [train.stage(name).method for name in cfg.recipe.stages]:
        notes.append("train.recompute=true makes training of the head alone almost 3 times dearer")
    return notes


def plan_notes(asked: RunConfig, cfg: RunConfig) -> list[str]:
    """Return the notes of a plan; `cfg` is what `asked` becomes for this model and budget."""
    return [
        "GF/token and PF-days: exact FLOPs with causal attention, without recomputation; "
        "hardware: PF-days carried out, with dense attention and recomputation",
        _hours(cfg),
        _prices(cfg, asked.hardware),
        f"device: {cfg.hardware.source}",
        _tokens(cfg),
        *_warnings(asked, cfg),
    ]
