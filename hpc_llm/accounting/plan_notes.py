"""What the figures of a plan rest on, in sentences: conventions, priors, prices, sources."""

from hpc_llm.accounting.architecture import Architecture
from hpc_llm.accounting.flops import flops_per_token
from hpc_llm.accounting.method import Method
from hpc_llm.settings import HardwareSettings, RunConfig

__all__ = ["plan_notes"]


def _hours(cfg: RunConfig) -> str:
    hardware = cfg.hardware
    if hardware.utilisation_low is None:
        return (
            "hours n/a: no published utilisation of this device; give hardware.utilisation_low "
            "and hardware.utilisation_high"
        )
    again = " and recomputation" if cfg.train.recompute else ""
    return (
        f"hours: FLOPs with dense attention{again}, at {hardware.utilisation_low:.0%} to "
        f"{hardware.utilisation_high:.0%} of the peak, goodput {cfg.cluster.goodput:.0%}; a prior, "
        "good to about 35 %"
    )


def _prices(hardware: HardwareSettings) -> str:
    if hardware.price_low is None:
        return "money n/a: no price; give hardware.price_low and hardware.price_high"
    return (
        f"prices: {hardware.price_low:.4g} to {hardware.price_high:.4g} {hardware.currency} "
        f"for one device and hour, {hardware.price_date}"
    )


def _vocabulary(cfg: RunConfig, base: Architecture, adapted: Architecture) -> str:
    old, new = (
        flops_per_token(arch, Method.full(), cfg.train.sequence_length) for arch in (base, adapted)
    )
    return (
        f"new vocabulary: a token costs x{new / old:.3f}; a text costs that times its new tokens "
        "over its old ones, which the tokenizer stage counts"
    )


def _warnings(cfg: RunConfig) -> list[str]:
    train, notes = cfg.train, []
    rows, ranks = train.batch_tokens // train.sequence_length, cfg.cluster.devices
    if cfg.hardware.kind == "gpu" and rows % ranks:
        notes.append(
            f"train.batch_tokens={train.batch_tokens}: {rows} rows cannot be divided among {ranks} "
            f"devices; training needs a multiple of {ranks * train.sequence_length}"
        )
    if train.recompute and "head" in [train.stage(name).method for name in cfg.recipe.stages]:
        notes.append("train.recompute=true makes training of the head alone almost 3 times dearer")
    return notes


def plan_notes(cfg: RunConfig, base: Architecture, adapted: Architecture) -> list[str]:
    """Return the notes of a plan; `base` and `adapted` differ in their vocabulary."""
    notes = [
        "GF/token and PF-days: exact FLOPs with causal attention, without recomputation; "
        "6ND counts every parameter as trained",
        _hours(cfg),
        _prices(cfg.hardware),
        f"device: {cfg.hardware.source}",
        _vocabulary(cfg, base, adapted),
    ]
    if cfg.plan.tokens is None:
        notes.append("tokens: train.STAGE.steps x train.batch_tokens; max_epochs may end it sooner")
    return notes + _warnings(cfg)
