"""Settings of a table of runs (`conf/table/NAME.yaml`), read and checked by name."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings.options import near, read_option

__all__ = ["TableRow", "TableSettings", "load_table"]


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row: a run that differs from those of other rows, and the point that is measured."""

    label: str
    """Its name, unique in the table."""
    group: str = ""
    """Heading over consecutive rows."""
    overrides: list[str] = field(default_factory=list)
    """Settings of its runs, as on the command line. Rows with the same overrides share runs."""
    point: str
    """The point of the recipe that is measured: base, transplant, a training stage, corrected."""
    against: str | None = None
    """Label of the row that it is compared with, pair by pair; null: the row above in its group."""


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """Many runs, one table."""

    name: str
    """The name of its file."""
    title: str = ""
    """Caption of the table."""
    seeds: list[int]
    """Seeds of the runs of each row."""
    overrides: list[str] = field(default_factory=list)
    """Settings of all rows; those on the command line replace them."""
    early_point: str | None = None
    """A second point at which all rows but those of the base model are measured. Kendall's tau
    compares the order of the rows there with their order in the table."""
    rows: list[TableRow]
    """The rows, in order."""

    def reference(self, row: TableRow) -> str | None:
        """Return the label of the row that `row` is compared with; None: with none."""
        if row.against is not None:
            return row.against
        place = self.rows.index(row)
        above = self.rows[place - 1] if place else None
        return above.label if above is not None and above.group == row.group else None


TEXT, TEXTS, NUMBERS = "a text", "a list of texts", "a list of different integers from 0"
RULES = {
    "title": TEXT, "label": TEXT, "group": TEXT, "point": TEXT,
    "against": TEXT, "early_point": TEXT, "overrides": TEXTS, "seeds": NUMBERS,
}  # fmt: skip


def load_table(name: str) -> TableSettings:
    """Return the table `name`, of the project or a plug-in folder.

    Raises `UserError` for an unknown table, about `table.NAME...` for an unknown or missing key and
    a value of a wrong type, and for two rows with one label.
    """
    path, content = read_option("table", name, "table")
    key = f"table.{name}"
    listed = content.get("rows")
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{key}.rows", None, f"must be a list of rows ({path})", "add rows")
    rows = []
    for number, one in enumerate(listed, 1):
        label = one.get("label") if isinstance(one, dict) else None
        place = f"{key}.rows[{label or number}]"
        rows.append(TableRow(**_checked(place, one, TableRow, path)))
    table = _checked(key, {**content, "rows": rows, "name": name}, TableSettings, path)
    found = TableSettings(**table)
    _check_labels(key, found)
    return found


def _check_labels(key: str, table: TableSettings) -> None:
    labels = [row.label for row in table.rows]
    for row in table.rows:
        place = f"{key}.rows[{row.label}]"
        if labels.count(row.label) > 1:
            raise UserError(place, None, "two rows have this label", "rename one of them")
        if row.against is not None and row.against not in labels:
            raise UserError(
                f"{place}.against", row.against, "no such row", near(row.against, labels)
            )


def _checked(key: str, content: Any, kind: Any, path: Path) -> dict[str, Any]:
    """Return the fields of the dataclass `kind` in a mapping, after checking names and types."""
    if not isinstance(content, dict):
        raise UserError(key, content, f"must be a mapping of settings ({path})", "see Extending")
    known = [one.name for one in fields(kind)]
    required = [one.name for one in fields(kind) if _is_required(one)]
    for name in content:
        if name not in known:
            raise UserError(f"{key}.{name}", None, f"no such setting ({path})", near(name, known))
    for name in required:
        if content.get(name) in (None, "", []):
            raise UserError(f"{key}.{name}", None, f"has no value in {path}", "add it")
    given = {name: value for name, value in content.items() if value is not None}
    for name, value in given.items():
        if name in RULES and not _fits(RULES[name], value):
            raise UserError(f"{key}.{name}", value, f"must be {RULES[name]}", "correct the file")
    return given


def _is_required(one: Any) -> bool:
    return one.default is one.default_factory  # both are MISSING


def _fits(rule: str, value: Any) -> bool:
    if rule == TEXT:
        return isinstance(value, str)
    if not isinstance(value, list):
        return False
    if rule == TEXTS:
        return all(isinstance(entry, str) for entry in value)
    whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in value)
    return whole and len(set(value)) == len(value)
