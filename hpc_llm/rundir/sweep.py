"""The sweep folder `runs/<sweep>/`: its trials, and their list.

```
sweep.json    the verb, the swept keys, and each trial: number, values, overrides, stages
0/ 1/ 2/      one run folder per trial, named by its number
jobs.jsonl    the submitted job arrays; their scripts are in jobs/
local.jsonl   without Slurm: when each trial began and ended
sweep.svg     the plot drawn by `hpc-llm sweep`
rows.json     of a table (`hpc-llm table`): its rows and their trials
table.*       of a table: json, md, html and tex
```
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc_llm.errors import UserError
from hpc_llm.rundir.atomic import read_json, write_json
from hpc_llm.rundir.folder import RunFolder

__all__ = ["Sweep", "SweepFolder", "Trial"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One combination of the swept values."""

    number: int
    """Its position in the sweep, its folder, and its task id in the Slurm arrays."""
    values: dict[str, str]
    """Swept key -> value, as typed."""
    overrides: list[str]
    """All overrides of its configuration."""
    stages: dict[str, str]
    """Its stages in order: stage -> fingerprint, as in the record of a finished stage."""

    @property
    def words(self) -> str:
        """Its values as overrides, `stages.lora.alpha=16 stages.lora.rank=8`."""
        return " ".join(f"{key}={value}" for key, value in self.values.items())


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Contents of `sweep.json`."""

    verb: str
    group: str
    """The W&B group of its trials."""
    keys: list[str]
    """The swept keys."""
    trials: list[Trial]
    """The trials, ordered by number."""

    def number(self, values: dict[str, str]) -> int | None:
        """Return the number of the trial with these values; None if there is none."""
        return next((trial.number for trial in self.trials if trial.values == values), None)


@dataclass(frozen=True)
class SweepFolder:
    """Paths in a sweep folder."""

    path: Path

    @property
    def listing(self) -> Path:
        """The list of trials."""
        return self.path / "sweep.json"

    @property
    def rows(self) -> Path:
        """Of a table: its settings, and the trials of each row."""
        return self.path / "rows.json"

    @property
    def jobs(self) -> Path:
        """One line per submitted job array."""
        return self.path / "jobs.jsonl"

    @property
    def local(self) -> Path:
        """Start and end times of trials run locally."""
        return self.path / "local.jsonl"

    @property
    def picture(self) -> Path:
        """Bits per byte against the swept values."""
        return self.path / "sweep.svg"

    def trial(self, number: int) -> RunFolder:
        """Return the run folder of a trial."""
        return RunFolder(self.path / str(number))

    def script(self, name: str) -> Path:
        """Return the path of the submitted script of an array."""
        return self.path / "jobs" / f"{name}.sbatch"

    def exists(self) -> bool:
        """Return whether the folder has a sweep."""
        return self.listing.is_file()

    def read(self) -> Sweep:
        """Return the sweep; raises `UserError` if there is none."""
        if not self.exists():
            raise UserError(
                str(self.path),
                None,
                "is not a sweep folder: it has no sweep.json",
                "start a sweep with hpc-llm adapt -m",
            )
        try:
            values = read_json(self.listing)
            values["trials"] = [
                Trial(**{key: value for key, value in trial.items() if key != "folder"})
                for trial in values["trials"]
            ]
            return Sweep(**values)
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise UserError(
                str(self.listing), None, f"cannot be read ({error})", "use another run=NAME"
            ) from error

    def write(self, sweep: Sweep) -> None:
        """Write the list of trials."""
        trials: Sequence[dict[str, object]] = [
            {**asdict(trial), "folder": str(self.trial(trial.number).path)}
            for trial in sweep.trials
        ]
        write_json(self.listing, {**asdict(sweep), "trials": trials})
