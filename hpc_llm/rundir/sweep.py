"""The sweep folder `runs/<sweep>/`: its trials side by side, and the list of them.

```
sweep.json    the verb, the swept keys, and each trial: number, values, overrides, stages
0/ 1/ 2/      a run folder for each trial, named by its number
jobs.jsonl    the arrays of jobs, as submitted; jobs/ holds their scripts
local.jsonl   or, without Slurm, when each trial began and ended
sweep.svg     the picture that `hpc-llm sweep` draws
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
    """Its place in the sweep, its folder, and its task in the arrays of Slurm."""
    values: dict[str, str]
    """Swept key -> its value, as it was typed."""
    overrides: list[str]
    """All overrides that it was composed from."""
    stages: dict[str, str]
    """What it has to do, in order: stage -> fingerprint, which the record has when it is done."""

    @property
    def words(self) -> str:
        """Its values as overrides, `stages.lora.alpha=16 stages.lora.rank=8`."""
        return " ".join(f"{key}={value}" for key, value in self.values.items())


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What `sweep.json` holds."""

    verb: str
    group: str
    """The W&B group that its trials share."""
    keys: list[str]
    """The swept keys."""
    trials: list[Trial]
    """By their numbers."""

    def number(self, values: dict[str, str]) -> int | None:
        """Return the number of the trial with these values; None: it has none."""
        return next((trial.number for trial in self.trials if trial.values == values), None)


@dataclass(frozen=True)
class SweepFolder:
    """Names of what lies in a sweep folder."""

    path: Path

    @property
    def listing(self) -> Path:
        """The trials."""
        return self.path / "sweep.json"

    @property
    def jobs(self) -> Path:
        """One line per array of jobs that was submitted."""
        return self.path / "jobs.jsonl"

    @property
    def local(self) -> Path:
        """When trials that were run here began and ended."""
        return self.path / "local.jsonl"

    @property
    def picture(self) -> Path:
        """Bits per byte against the swept values."""
        return self.path / "sweep.svg"

    def trial(self, number: int) -> RunFolder:
        """Return the run folder of a trial."""
        return RunFolder(self.path / str(number))

    def script(self, name: str) -> Path:
        """What sbatch was given for one array."""
        return self.path / "jobs" / f"{name}.sbatch"

    def exists(self) -> bool:
        """Return whether there is a sweep here."""
        return self.listing.is_file()

    def read(self) -> Sweep:
        """Return the sweep; `UserError` where there is none."""
        if not self.exists():
            raise UserError(
                str(self.path),
                None,
                "holds no sweep.json, so it is no sweep",
                "hpc-llm adapt -m makes one",
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
                str(self.listing), None, f"cannot be read ({error})", "give another run=NAME"
            ) from error

    def write(self, sweep: Sweep) -> None:
        """Write the list of trials."""
        trials: Sequence[dict[str, object]] = [
            {**asdict(trial), "folder": str(self.trial(trial.number).path)}
            for trial in sweep.trials
        ]
        write_json(self.listing, {**asdict(sweep), "trials": trials})
