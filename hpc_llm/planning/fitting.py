"""Suggests settings with which all stages of a recipe fit into device memory.

The search is over ZeRO stage, node partitioning, recomputation, micro-batch size and more nodes. On
a given number of nodes hours and money are proportional, so one suggestion is the best there; more
nodes are shown where they save hours or money. Every suggestion is a list of overrides of the same
configuration, and its costs are those of a plan with these overrides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from hpc_llm.accounting.memory import MemoryPlan, fits
from hpc_llm.accounting.projection import mean_utilisation
from hpc_llm.planning.work import Work, run_memory, run_projection, run_setup
from hpc_llm.settings import RunConfig, ZeroSettings

__all__ = ["Suggestion", "node_counts", "suggestions"]

MOST = 4  # suggestions


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """Settings with which every stage fits, and the costs of all stages (`mid`)."""

    overrides: str
    """Overrides to add to the command line."""
    nodes: int
    """Nodes of the job."""
    memory_bytes: int
    """Peak of one device in the largest stage."""
    hours: float | None
    """Wall time; None: unknown."""
    device_hours: float | None
    """Allocated devices x hours."""
    money: float | None
    """In the currency of the device's price."""


def suggestions(cfg: RunConfig, works: Sequence[Work]) -> list[Suggestion]:
    """Return at most four suggestions with which every stage fits, from the nodes of `cfg` up.

    None of them is dominated in hours and money by one with as many nodes or fewer; where hours are
    unknown it is one suggestion. [] where nothing fits.
    """
    found: list[tuple[float, float, Suggestion]] = []
    counts = list(node_counts(cfg)) or list(node_counts(cfg, least=1))[-1:]
    for nodes in counts:
        ways = [_suggestion(cfg, other, works) for other in _ways(cfg, nodes, works)]
        if ways:
            best = min(
                ways, key=lambda way: way[0]
            )  # ties: the first changes and communicates least
            if not any(hours <= best[0] and cost <= best[1] for hours, cost, _ in found):
                found.append(best)
        if len(found) == MOST or (found and mean_utilisation(cfg.hardware) is None):
            break
    return [suggestion for _, _, suggestion in found]


def node_counts(cfg: RunConfig, least: int | None = None) -> Iterator[int]:
    """Yield the numbers of nodes, from those of `cfg` up, that divide the sequences of a step."""
    rows = cfg.train.batch_tokens // cfg.train.sequence_length
    each, shared = cfg.cluster.devices_per_node, cfg.parallel.ranks
    for nodes in range(least or cfg.cluster.nodes, rows * shared // each + 1):
        if nodes * each % shared == 0 and rows % (nodes * each // shared) == 0:
            yield nodes


def _ways(cfg: RunConfig, nodes: int, works: Sequence[Work]) -> Iterator[RunConfig]:
    """Yield configurations with which every stage fits, on that many nodes.

    Each ZeRO stage, with and without recomputation, with the micro-batch of `cfg` or the largest
    below it that fits. ZeRO 3 sends the weights for each micro-batch, so there also with the
    largest above it.
    """
    cfg = replace(cfg, cluster=replace(cfg.cluster, nodes=nodes))
    setup, micro_steps = run_setup(cfg)
    rows, given = setup.micro_batch_size * micro_steps, setup.micro_batch_size
    sizes = [size for size in range(rows, 0, -1) if rows % size == 0]
    up_to_given = [size for size in sizes if size <= given]
    larger = [size for size in sizes if size > given]
    for zero in _partitions(cfg):
        for recompute in _recomputations(cfg):
            asked = replace(cfg, zero=zero, train=replace(cfg.train, recompute=recompute))
            for choice in (up_to_given, larger) if zero.stage == 3 else (up_to_given,):
                ways = (asked if size == given else _with_rows(asked, size) for size in choice)
                fitting = (way for way in ways if _fit(way, works))
                yield from islice(fitting, 1)


def _recomputations(cfg: RunConfig) -> tuple[str, ...]:
    """Return the values of `train.recompute` that work with the other settings."""
    whole = cfg.train.compile or cfg.parallel.ranks > 1
    return ("none", "full") if whole else ("none", "selective", "full")


def _partitions(cfg: RunConfig) -> Iterator[ZeroSettings]:
    """Yield what can be partitioned, and how: settings that need stage 3 keep it."""
    if not cfg.zero.needs_stage_3:
        for stage in (1, 2, 3):
            yield replace(cfg.zero, stage=stage)
        if cfg.hardware.kind == "gpu" and cfg.cluster.nodes > 1 < cfg.cluster.devices_per_node:
            yield replace(cfg.zero, stage=3, node_partition=True)
    else:
        yield replace(cfg.zero, stage=3)


def _with_rows(cfg: RunConfig, rows: int) -> RunConfig:
    """Return `cfg` with micro-batches of `rows` sequences."""
    tokens = rows * cfg.train.sequence_length
    return replace(cfg, train=replace(cfg.train, micro_batch_tokens=tokens))


def _fit(cfg: RunConfig, works: Sequence[Work]) -> bool:
    return all(fits(peak, cfg.hardware) for peak in _peaks(cfg, works))


def _peaks(cfg: RunConfig, works: Sequence[Work]) -> list[MemoryPlan]:
    """Return the peaks of the stages whose memory is known."""
    peaks = (run_memory(cfg, work) for work in works)
    return [peak for peak in peaks if peak is not None]


def _suggestion(
    cfg: RunConfig, other: RunConfig, works: Sequence[Work]
) -> tuple[float, float, Suggestion]:
    """Return hours and device-hours to compare by, and the suggestion of `other` for `cfg`.

    Where the utilisation is unknown, the comparison uses the hours at the peak.
    """
    known = mean_utilisation(other.hardware) is not None
    at_peak = replace(other.hardware, utilisation_low=1.0, utilisation_high=1.0)
    compared = other if known else replace(other, hardware=at_peak)
    points = [run_projection(compared, work).mid for work in works]
    hours = sum(point.hours or 0.0 for point in points)
    money = [point.money for point in points if point.money is not None]
    suggestion = Suggestion(
        overrides=_overrides(cfg, other),
        nodes=other.cluster.nodes,
        memory_bytes=max(peak.total for peak in _peaks(other, works)),
        hours=hours if known else None,
        device_hours=hours * other.cluster.devices if known else None,
        money=sum(money) if known and money else None,
    )
    return hours, hours * other.cluster.devices, suggestion


def _overrides(cfg: RunConfig, other: RunConfig) -> str:
    """Return the changes of `other` as overrides of values: a group cannot be chosen twice."""
    pairs = {
        "cluster.nodes": (cfg.cluster.nodes, other.cluster.nodes),
        "zero.stage": (cfg.zero.stage, other.zero.stage),
        "zero.node_partition": (cfg.zero.node_partition, other.zero.node_partition),
        "train.recompute": (cfg.train.recompute, other.train.recompute),
        "train.micro_batch_tokens": (cfg.train.micro_batch_tokens, other.train.micro_batch_tokens),
    }
    return " ".join(f"{key}={after}".lower() for key, (old, after) in pairs.items() if old != after)
