"""Whether the stages of a recipe fit into the devices' memory, and what would make them fit.

The search is small: ZeRO stage, recomputation, rows of a forward pass, and more nodes. On a given
number of nodes hours and money go together, so one way is the best there; more nodes are shown
where they save hours or money. Every way is an override of the same configuration, so that a plan
made with it says the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hpc_llm.accounting.architecture import Architecture
from hpc_llm.accounting.hardware import Machine
from hpc_llm.accounting.memory import MemoryPlan, TrainingSetup, memory_plan
from hpc_llm.accounting.method import Method
from hpc_llm.accounting.money import middle_price
from hpc_llm.accounting.projection import hardware_flops
from hpc_llm.accounting.traffic import network_seconds
from hpc_llm.settings import HardwareSettings, RunConfig

__all__ = ["Suggestion", "Work", "network_hours", "run_machine", "run_memory", "suggestions"]

MOST = 4  # suggestions
ROOM = 0.95  # of the memory may be filled by one: fragmentation is not counted


@dataclass(frozen=True, kw_only=True)
class Work:
    """One training stage: which model, what learns (recomputation left open), on how much text."""

    stage: str
    arch: Architecture
    method: Method
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """One way of carrying out all stages so that each fits, and what they take then."""

    overrides: str
    """What to add to the command line."""
    nodes: int
    memory_bytes: int
    """Peak of one device in the largest stage."""
    hours: float | None
    """At the middle of the utilisation, the network between nodes added where it is known."""
    device_hours: float | None
    money: float | None
    """At the middle of the prices."""


def _setup(cfg: RunConfig) -> tuple[TrainingSetup, int]:
    """Return how the trainer divides a step of `cfg` on the cluster, and its micro-steps.

    A rank is one GPU. On CPUs `launch.processes` are the ranks of a node.
    """
    train, cluster = cfg.train, cfg.cluster
    ranks = cluster.devices
    if cfg.hardware.kind == "cpu":
        ranks = cluster.nodes * cfg.launch.processes
    rows = max(1, train.batch_tokens // train.sequence_length // ranks)
    limit = rows
    if train.micro_batch_tokens is not None:
        limit = max(1, min(rows, train.micro_batch_tokens // train.sequence_length))
    micro = max(size for size in range(1, limit + 1) if rows % size == 0)
    setup = TrainingSetup(
        precision=train.precision,
        sequence_length=train.sequence_length,
        micro_batch_size=micro,
        zero_stage=cfg.zero.stage,
        data_parallel=ranks,
        offload_optimizer=cfg.zero.offload_optimizer,
        offload_parameters=cfg.zero.offload_parameters,
        bucket_elements=cfg.zero.bucket_elements,
    )
    return setup, rows // micro


def _method(cfg: RunConfig, work: Work) -> Method:
    return replace(work.method, recompute=cfg.train.recompute)


def run_machine(cfg: RunConfig) -> Machine:
    """Return the devices that `cfg` asks for."""
    return Machine(hardware=cfg.hardware, cluster=cfg.cluster, precision=cfg.train.precision)


def run_memory(cfg: RunConfig, work: Work) -> MemoryPlan:
    """Return the peak memory of one device."""
    return memory_plan(work.arch, _method(cfg, work), _setup(cfg)[0])


def network_hours(cfg: RunConfig, work: Work) -> float | None:
    """Return the hours that the network between nodes adds where nothing overlaps.

    None where its bandwidth is not known.
    """
    setup, micro_steps = _setup(cfg)
    seconds = network_seconds(work.arch, _method(cfg, work), setup, cfg.cluster, micro_steps)
    if seconds is None:
        return None
    return seconds * work.tokens / cfg.train.batch_tokens / cfg.cluster.goodput / 3600


def suggestions(cfg: RunConfig, works: Sequence[Work]) -> list[Suggestion]:
    """Return at most four ways in which every stage fits, those on the fewest nodes first.

    None of them is beaten in hours and in money by one that needs no more nodes. [] where nothing
    fits.
    """
    found: list[tuple[float, float, Suggestion]] = []
    for nodes in _node_counts(cfg):
        ways = [_suggestion(cfg, other, works) for other in _ways(cfg, nodes, works)]
        if ways:
            best = min(ways, key=lambda way: way[0])  # the first of equals sends the least
            if not any(hours <= best[0] and cost <= best[1] for hours, cost, _ in found):
                found.append(best)
        if len(found) == MOST:
            break
    return [suggestion for _, _, suggestion in found]


def _node_counts(cfg: RunConfig) -> Iterator[int]:
    """Yield the nodes of `cfg` and multiples of them that divide the rows of a step."""
    rows = cfg.train.batch_tokens // cfg.train.sequence_length
    yield cfg.cluster.nodes
    for factor in range(2, rows // cfg.cluster.devices + 1):
        if rows % (factor * cfg.cluster.devices) == 0:
            yield factor * cfg.cluster.nodes


def _ways(cfg: RunConfig, nodes: int, works: Sequence[Work]) -> Iterator[RunConfig]:
    """Yield configurations in which every stage fits, on that many nodes.

    Each ZeRO stage, with and without recomputation, with the largest micro-batch that fits, with
    some memory to spare, and is not above the one that `cfg` has.
    """
    cfg = replace(cfg, cluster=replace(cfg.cluster, nodes=nodes))
    setup, micro_steps = _setup(cfg)
    rows = setup.micro_batch_size * micro_steps
    sizes = [size for size in range(setup.micro_batch_size, 0, -1) if rows % size == 0]
    for stage in (3,) if cfg.zero.offload_parameters else (1, 2, 3):
        zero = replace(cfg.zero, stage=stage)
        for recompute in (False, True):
            train = replace(cfg.train, recompute=recompute)
            for size in sizes:
                if size < setup.micro_batch_size:
                    tokens = size * setup.sequence_length
                    train = replace(train, micro_batch_tokens=tokens)
                other = replace(cfg, zero=zero, train=train)
                if all(_fits_well(run_memory(other, work), cfg.hardware) for work in works):
                    yield other
                    break


def _fits_well(plan: MemoryPlan, device: HardwareSettings) -> bool:
    return device.memory_gib is not None and plan.total <= ROOM * device.memory_gib * 2**30


def _suggestion(
    cfg: RunConfig, other: RunConfig, works: Sequence[Work]
) -> tuple[float, float, Suggestion]:
    """Return hours and device-hours to compare by, and the suggestion of `other` beside `cfg`.

    Where the utilisation is not known, those to compare by are the hours at the peak.
    """
    machine, length = run_machine(other), other.train.sequence_length
    flops = sum(
        hardware_flops(work.arch, _method(other, work), work.tokens, length) for work in works
    )
    low, high = other.hardware.utilisation_low, other.hardware.utilisation_high
    share = 1.0 if low is None or high is None else (low + high) / 2
    hours = flops / machine.flops_per_second / share / other.cluster.goodput / 3600
    hours += sum(network_hours(other, work) or 0.0 for work in works)
    device_hours = hours * other.cluster.devices
    price, known = middle_price(other.hardware), low is not None
    suggestion = Suggestion(
        overrides=_overrides(cfg, other),
        nodes=other.cluster.nodes,
        memory_bytes=max(run_memory(other, work).total for work in works),
        hours=hours if known else None,
        device_hours=device_hours if known else None,
        money=device_hours * price if known and price is not None else None,
    )
    return hours, device_hours, suggestion


def _overrides(cfg: RunConfig, other: RunConfig) -> str:
    """Write what `other` changes as overrides; values, as a group cannot be chosen twice."""
    pairs = {
        "cluster.nodes": (cfg.cluster.nodes, other.cluster.nodes),
        "zero.stage": (cfg.zero.stage, other.zero.stage),
        "train.recompute": (cfg.train.recompute, other.train.recompute),
        "train.micro_batch_tokens": (cfg.train.micro_batch_tokens, other.train.micro_batch_tokens),
    }
    return " ".join(f"{key}={after}".lower() for key, (old, after) in pairs.items() if old != after)
