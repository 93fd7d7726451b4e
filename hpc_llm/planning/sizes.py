"""The sizes of a recipe's model: by the closed form of its family, or counted on the model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpc_llm.accounting.architecture import Architecture, ParameterCount, parameter_count
from hpc_llm.accounting.families import NoFormula
from hpc_llm.errors import UserError
from hpc_llm.methods import trains
from hpc_llm.planning.counted import CountedStage, count_stages
from hpc_llm.planning.work import Work
from hpc_llm.settings import RunConfig

__all__ = ["adapted_parameters", "closed_form", "stage_models"]


def closed_form(cfg: RunConfig, config: Mapping[str, Any]) -> Architecture | None:
    """Return the sizes of the base model, or None if its stages must be counted on the model.

    That is so for a family without a closed form, and with adapters on stacked experts.
    """
    if _adapts_experts(cfg):
        return None
    try:
        return Architecture.from_config(config)
    except NoFormula:
        return None


def _adapts_experts(cfg: RunConfig) -> bool:
    """Whether a stage has adapters on stacked experts, of which the closed form knows nothing."""
    adapters = (trains(stage).adapter for stage in cfg.stages.values())
    return any(adapter is not None and adapter.stacked for adapter in adapters)


def stage_models(
    cfg: RunConfig, config: Mapping[str, Any], base: Architecture | None, rows: tuple[int, int]
) -> Mapping[str, Architecture | CountedStage]:
    """Return the model of each stage: sizes for the closed form, else counts on the model.

    `rows` are those of the embeddings of the base model and of the adapted one.
    """
    old, new = rows
    sizes = {name: new if name in cfg.adaptation else None for name in cfg.stages}
    if base is None:
        asked = {name: (size or old, cfg.stages[name]) for name, size in sizes.items()}
        return count_stages(config, asked, cfg.train.sequence_length)
    return {
        name: base if size is None else replace(base, vocab_size=size)
        for name, size in sizes.items()
    }


def adapted_parameters(
    cfg: RunConfig, base: Architecture | None, works: Sequence[Work], rows: int
) -> ParameterCount:
    """Return the parameters of the adapted model, with the `rows` of its vocabulary."""
    if base is not None:
        return parameter_count(replace(base, vocab_size=rows))
    if not works:
        raise UserError("stages", "{}", "has no stage on which the model is counted", "add one")
    return next((w for w in works if w.stage in cfg.adaptation), works[-1]).parameters
