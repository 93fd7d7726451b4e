"""Results of a table of runs: measures over seeds and documents, costs, order of the rows.

Everything is read from the run folders of the trials; rows.json, written by `hpc-llm table`, says
which trials a row has. Nothing is computed again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from hpc_llm.accounting import Ledger, Spending, cost_report, middle_price
from hpc_llm.errors import UserError
from hpc_llm.evaluation.bootstrap import DocumentLosses, Interval
from hpc_llm.evaluation.measures import load_losses
from hpc_llm.evaluation.seeds import mean_bpb, mean_difference, mean_measure
from hpc_llm.report.measures import in_order, read_measures
from hpc_llm.rundir import RunFolder, SweepFolder, Trial, read_json

__all__ = ["collect", "rank_agreement"]

Row = Mapping[str, Any]
"""A row of rows.json."""


@dataclass(frozen=True)
class _Run:
    """A trial: one run of a row, with one seed."""

    folder: RunFolder
    trial: Trial

    @cached_property
    def done(self) -> list[str]:
        """Its finished stages."""
        return self.folder.done(self.trial.stages)

    def has(self, point: str) -> bool:
        """Return whether a point is evaluated."""
        return f"evaluate/{point}" in self.done

    def measures(self, point: str) -> dict[str, dict[str, Any]]:
        """Return the measures at a point."""
        return read_measures(self.folder.path / f"evaluate/{point}.json")

    def losses(self, point: str) -> dict[str, DocumentLosses]:
        """Return the losses of the test documents at a point."""
        return load_losses(self.folder.path / f"evaluate/{point}.npz")

    @cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """The results of its finished stages."""
        records = self.folder.records()
        return {name: records[name]["result"] for name in self.done}


def collect(folder: SweepFolder) -> dict[str, Any]:
    """Return the content of table.json from the finished runs of a folder.

    Raises `UserError` for a folder without a table, and for rows on different documents.
    """
    if not folder.rows.is_file():
        fix = "start one with hpc-llm table table=NAME"
        raise UserError(str(folder.path), None, "is not the folder of a table", fix)
    table, trials = read_json(folder.rows), {t.number: t for t in folder.read().trials}
    runs = {number: _Run(folder.trial(number), trial) for number, trial in trials.items()}
    costs = _Costs(list(runs.values()))
    own = {row["label"]: [runs[number] for number in row["trials"]] for row in table["rows"]}
    points = {row["label"]: row["point"] for row in table["rows"]}
    rows = []
    for row in table["rows"]:
        other = row["against"]
        against = None if other is None else (own[other], points[other])
        rows.append(_row(row, own[row["label"]], against, costs))
    return {
        "table": table["name"],
        "title": table["title"],
        "seeds": table["seeds"],
        "rows": rows,
        "rank_agreement": rank_agreement(rows),
    }


def _row(
    row: Row, runs: Sequence[_Run], against: tuple[Sequence[_Run], str] | None, costs: "_Costs"
) -> dict[str, Any]:
    """Return a row of table.json; what is unknown is None or absent."""
    point, early = row["point"], row["early_point"]
    done = [run for run in runs if run.has(point)]
    kept = {key: row[key] for key in ("label", "group", "overrides", "point", "against")}
    phi = [run.results["correct"]["phi"] for run in done if point == "corrected"]
    chosen = [one["value"] for one in phi if one is not None]
    ratios = [_vocabulary(run, point).get("token_ratio") for run in done]
    return {
        **kept,
        "runs": len(runs),
        "finished": len(done),
        "measures": _measures(done, point),
        "early": None if early is None else _measures([r for r in runs if r.has(early)], early),
        "difference": {} if against is None else _differences(runs, point, *against),
        "phi": chosen,
        "token_ratio": _mean([ratio for ratio in ratios if ratio is not None]),
        **costs.of(done, row["stages"]),
    }


def _vocabulary(run: _Run, point: str) -> Mapping[str, Any]:
    """Return the result of the tokenizer stage; that of the base model has the old vocabulary."""
    return {"token_ratio": 1.0} if point == "base" else run.results.get("tokenizer", {})


def _measures(runs: Sequence[_Run], point: str) -> dict[str, dict[str, Any]]:
    """Return every measure at a point: its mean over seeds, its interval, the value of each run."""
    found = [run.measures(point) for run in runs]
    losses = [run.losses(point) for run in runs]
    base = [run.losses("base") for run in runs]
    result = {}
    for name in in_order(found):
        ones = [one[name] for one in found if name in one]
        interval = _interval(name, ones, losses, base)
        result[name] = {
            **_ends(interval),
            **{key: ones[0][key] for key in ("n", "unit", "better")},
            **({"chance": ones[0]["chance"]} if "chance" in ones[0] else {}),
            "of_runs": [one["value"] for one in ones],
        }
    return result


def _interval(
    name: str,
    ones: Sequence[Mapping[str, Any]],
    losses: Sequence[Mapping[str, DocumentLosses]],
    base: Sequence[Mapping[str, DocumentLosses]],
) -> Interval | None:
    """Return the mean of a measure: over seeds and documents where their losses are known."""
    kind, _, language = name.partition("/")
    if kind in ("bpb", "forgetting") and all(language in one for one in losses):
        of_language = [one[language] for one in losses]
        if kind == "bpb":
            return mean_bpb(of_language)
        return mean_difference(of_language, [one[language] for one in base])
    return mean_measure(ones)


def _differences(
    runs: Sequence[_Run], point: str, others: Sequence[_Run], other_point: str
) -> dict[str, dict[str, Any]]:
    """Return bits per byte minus those of another row, by language, paired by seed and document."""
    pairs = zip(runs, others, strict=True)
    both = [(one, two) for one, two in pairs if one.has(point) and two.has(other_point)]
    mine = [one.losses(point) for one, _ in both]
    theirs = [two.losses(other_point) for _, two in both]
    languages = [name for name in (mine[0] if mine else {}) if all(name in one for one in theirs)]
    found = {
        f"bpb/{name}": mean_difference([one[name] for one in mine], [one[name] for one in theirs])
        for name in languages
    }
    return {name: _ends(interval) for name, interval in found.items()}


def _ends(interval: Interval | None) -> dict[str, float | None]:
    """Return value, low and high; None for what is unknown."""
    if interval is None:
        return {"value": None, "low": None, "high": None}
    return {key: value if value == value else None for key, value in asdict(interval).items()}


class _Costs:
    """Costs of stages by the ledgers of the runs that computed them.

    A stage that is linked from the cache has no costs in its own run.
    """

    def __init__(self, runs: Sequence[_Run]) -> None:
        self.spent: dict[tuple[str, str], Spending] = {}
        for run in runs:
            ledger = Ledger(run.folder.ledger)
            for name in run.done:
                if not run.results[name].get("linked"):
                    key = (name, run.trial.stages[name])
                    self.spent[key] = ledger.totals(name).useful

    def of(self, runs: Sequence[_Run], stages: Sequence[str]) -> dict[str, Any]:
        """Return the mean costs of `stages` over runs, and which stages they lack.

        FLOPs, tokens and text are those of training; hours and money those of all stages.
        """
        sums, lacks = [], []
        for run in runs:
            keys = [(name, run.trial.stages[name]) for name in stages]
            lacks += [name for name, key in zip(stages, keys, strict=True) if key not in self.spent]
            total = Spending()
            for key in keys:
                total.add_all(self.spent.get(key, Spending()))
            sums.append(total)
        hours = _mean([one.device_hours for one in sums])
        trained = [
            [run.results[name] for name in stages if "steps" in run.results[name]] for run in runs
        ]
        return {
            "tokens": _mean([sum(one["tokens"] for one in results) for results in trained]),
            "text_bytes": _mean([sum(one["bytes"] for one in results) for results in trained]),
            "flops": _mean([sum(one["flops"] for one in results) for results in trained]),
            "hours": hours,
            **_priced(runs, hours),
            "without_costs_of": sorted(set(lacks)),
        }


def _priced(runs: Sequence[_Run], hours: float | None) -> dict[str, Any]:
    """Return unit and money of device-hours, by the device of the first run."""
    report = None
    if runs and runs[0].folder.ledger.is_file():
        report = cost_report(runs[0].folder.path, ask_slurm=False)
    if report is None or report.hardware is None or hours is None:
        return {"unit": "device-hours", "money": {"amount": None, "currency": ""}}
    price = middle_price(report.hardware)
    amount = None if price is None else hours * price
    unit = "GPU-hours" if report.hardware.kind == "gpu" else "core-hours"
    return {"unit": unit, "money": {"amount": amount, "currency": report.hardware.currency}}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def rank_agreement(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return Kendall's tau-b between the order of rows at the early point and in the table.

    By the first measure; with its two-sided p-value under independence (exact without ties). None
    for fewer than three rows that are measured at both.
    """
    pairs = []
    main = next((name for row in rows if row["early"] for name in row["early"]), "")
    value: Callable[[Mapping[str, Any]], float] = lambda measures: measures[main]["value"]  # noqa: E731
    for row in rows:
        if row["early"] and main in row["measures"] and main in row["early"]:
            pairs.append((value(row["early"]), value(row["measures"])))
    if len(pairs) < 3:
        return None
    from scipy.stats import kendalltau

    found = kendalltau([early for early, _ in pairs], [late for _, late in pairs])
    tau, p = (None if number != number else float(number) for number in found)
    return {"measure": main, "rows": len(pairs), "tau": tau, "p": p}
