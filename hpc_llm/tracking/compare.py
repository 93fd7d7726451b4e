"""Compare two runs: the first step with a different batch, and the first with a different loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_llm.rundir import RunFolder, read_jsonl

__all__ = ["Parting", "compare_runs", "partings"]


@dataclass(frozen=True, kw_only=True)
class Parting:
    """The comparison of two runs in one stage."""

    stage: str
    steps: int
    """Number of steps in both runs."""
    batch: int | None
    """First step with a different batch; None: all batches are equal."""
    bits: int | None
    """First step whose loss is not bitwise equal."""
    loss: int | None
    """First step whose loss differs by more than the relative `tolerance`."""
    losses: tuple[float, float] | None
    """The two losses at that step."""


def _steps(events: Path) -> dict[str, dict[int, list[Any]]]:
    """Return the records of each stage by step; of a repeated step the last one."""
    stages: dict[str, dict[int, list[Any]]] = {}
    for line in read_jsonl(events):
        if line.get("event") == "train":
            known = stages.setdefault(line["stage"], {})
            known.update({record[0]: record for record in line.get("steps", [])})
    return stages


def _first(one: Mapping[int, Any], other: Mapping[int, Any], same: Any) -> int | None:
    shared = sorted(one.keys() & other.keys())
    return next((step for step in shared if not same(one[step], other[step])), None)


def partings(one: Path, other: Path, tolerance: float) -> list[Parting]:
    """Compare two `events.jsonl` stage by stage; `tolerance` is relative."""
    first, second = _steps(one), _steps(other)
    found = []
    for stage in first:
        if stage not in second:
            continue
        a, b = first[stage], second[stage]
        loss = _first(a, b, lambda x, y: abs(x[3] - y[3]) <= tolerance * abs(x[3]))
        found.append(
            Parting(
                stage=stage,
                steps=len(a.keys() & b.keys()),
                batch=_first(a, b, lambda x, y: x[2] == y[2]),
                bits=_first(a, b, lambda x, y: x[3] == y[3]),
                loss=loss,
                losses=None if loss is None else (a[loss][3], b[loss][3]),
            )
        )
    return found


def _described(parting: Parting, tolerance: float) -> str:
    if parting.bits is None and parting.batch is None:
        return f"{parting.stage}: batches and losses are bit-identical in {parting.steps} steps"
    parts = []
    if parting.batch is not None:
        parts.append(f"batches differ from step {parting.batch}")
    if parting.bits is not None:
        parts.append(f"losses are not bit-identical from step {parting.bits}")
    if parting.loss is not None and parting.losses is not None:
        a, b = parting.losses
        parts.append(
            f"losses differ by more than {tolerance:g} from step {parting.loss} ({a:.6g}, {b:.6g})"
        )
    return f"{parting.stage}: {'; '.join(parts)}; {parting.steps} steps in both"


def compare_runs(one: Path, other: Path, tolerance: float = 1e-5) -> str:
    """Return one line for each stage that both runs have trained; `tolerance` is relative."""
    found = partings(RunFolder(one).events, RunFolder(other).events, tolerance)
    return (
        "\n".join([_described(parting, tolerance) for parting in found] or ["no stage in common"])
        + "\n"
    )
