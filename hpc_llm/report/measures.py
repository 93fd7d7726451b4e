"""Read the measures in `evaluate/POINT.json` and `summary.json` for all views.

No measure is named here. Runs of older versions have bits per byte under the name of each language;
they are read as `bpb/LANGUAGE`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.report.text import change, interval
from hpc_llm.rundir import read_json

__all__ = [
    "Measures",
    "axis_label",
    "by_name",
    "change_from",
    "first_point",
    "groups",
    "in_order",
    "is_better",
    "measure_text",
    "points_of",
    "read_measures",
    "summary_measures",
    "whiskers",
]

Measures = dict[str, dict[str, dict[str, Any]]]
"""`measures[NAME][POINT]`: value, low, high, n, unit, better."""
LEGACY = {"unit": "bits per byte", "better": "lower"}


def read_measures(path: Path) -> dict[str, dict[str, Any]]:
    """Return the measures of one `evaluate/POINT.json` by name.

    Raises `UserError` for a file that has none.
    """
    content = read_json(path)
    found: dict[str, dict[str, Any]] | None = content.get("measures")
    if found is not None:
        return found
    languages = {key: v for key, v in content.items() if isinstance(v, dict) and "bytes" in v}
    if not languages:
        raise UserError(str(path), None, "has no measures", "run hpc-llm evaluate again")
    return {
        f"bpb/{language}": {
            **{key: v[key] for key in ("value", "low", "high")},
            "n": v["documents"],
            **LEGACY,
        }
        for language, v in languages.items()
    }


def by_name(points: Mapping[str, Mapping[str, dict[str, Any]]]) -> Measures:
    """Turn `[POINT][NAME]` into `[NAME][POINT]`; both in their order."""
    return {
        name: {point: found[name] for point, found in points.items() if name in found}
        for name in in_order(points.values())
    }


def in_order(groups: Iterable[Collection[str]]) -> list[str]:
    """Return the names of all groups, in the order of the largest, then those of the others.

    Groups are the measures of each point, or the points of each measure; some lack a name.
    """
    longest = sorted(groups, key=len, reverse=True)
    return list(dict.fromkeys(name for group in longest for name in group))


def summary_measures(summary: Mapping[str, Any]) -> Measures:
    """Return the measures of `summary.json`; older ones have values without intervals."""
    if (found := summary.get("measures")) is not None:
        return dict(found)
    columns = {key: v for key, v in summary.items() if key.endswith("_bpb")}
    return {
        f"bpb/{key.removesuffix('_bpb')}": {
            point: {"value": value, "low": None, "high": None, "n": None, **LEGACY}
            for point, value in column.items()
        }
        for key, column in columns.items()
        if column and any(value is not None for value in column.values())
    }


def points_of(measures: Measures) -> list[str]:
    """Return the points of all measures, in the order of the recipe."""
    return in_order(measures.values())


def first_point(measures: Measures) -> str | None:
    """Return the reference point for changes: the base model."""
    return next(iter(points_of(measures)), None)


def groups(measures: Measures) -> Iterator[tuple[str, Measures]]:
    """Yield (KIND, its measures): those named `KIND/...` share a plot."""
    kinds = dict.fromkeys(name.split("/")[0] for name in measures)
    for kind in kinds:
        yield kind, {name: v for name, v in measures.items() if name.split("/")[0] == kind}


def measure_text(measure: Mapping[str, Any] | None) -> str:
    """Return `1.890 (1.801 to 1.973)`; `1.890` without an interval; n/a."""
    return interval(measure, places=3)


def change_from(base: Mapping[str, Any] | None, measure: Mapping[str, Any] | None) -> str:
    """Return the change from `base` in percent; empty without a base.

    A score whose interval contains its chance level is no gain: `chance level`.
    """
    if _at_chance(measure):
        return "chance level"
    if base is None or measure is base:
        return ""
    return change(None if measure is None else measure["value"], base["value"])


def _at_chance(measure: Mapping[str, Any] | None) -> bool:
    if measure is None or measure.get("chance") is None:
        return False
    low, high = measure["low"], measure["high"]
    return low is None or low <= measure["chance"] <= high


def axis_label(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return `bits per byte (lower is better)` for one measure at its points."""
    first = next(iter(found.values()))
    return f"{first['unit']} ({first['better']} is better)"


def is_better(value: float, other: float, direction: str) -> bool:
    """Whether `value` is strictly better than `other`; `direction` is lower or higher."""
    return value > other if direction == "higher" else value < other


def whiskers(measure: Mapping[str, Any]) -> tuple[float, float]:
    """Return the distance of the interval's ends below and above the value; 0 if not known."""
    value, low, high = measure["value"], measure["low"], measure["high"]
    below = 0.0 if low is None else max(0.0, value - low)
    return below, 0.0 if high is None else max(0.0, high - value)
