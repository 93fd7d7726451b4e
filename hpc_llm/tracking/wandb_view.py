"""Weights & Biases as a view of `events.jsonl`: it reads the file and logs what is new there.

W&B wants a history that only grows, over axes that never turn back, while a run of several stages
crashes, resumes and is submitted again. So the view counts every axis on over the stages
(`tokens_total`, ...), passes over the steps that a resumed stage does again (they repeat what was
logged), keeps the run's id in `wandb-id` and its place in the file in `wandb/position.json`.
Whatever W&B does, training goes on: the first error is one warning, and the view is silent.
"""

import json
import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpc_llm.rundir import check_fence, read_json, write_json, write_text
from hpc_llm.settings.tracking import TrackingSettings
from hpc_llm.tracking.events import AXES

__all__ = ["NoView", "WandbView", "open_view"]

INIT_SECONDS = 30  # to reach the server at the start
FINISH_SECONDS = 60  # to upload what is left; the rest stays on disk for `wandb sync`

logger = logging.getLogger(__name__)


class NoView:
    """The view that shows nothing."""

    def update(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Totals:
    """Axes counted on over the stages of a run, so that none ever turns back."""

    def __init__(self) -> None:
        """Start at zero, before the first stage."""
        self.base = dict.fromkeys(AXES, 0.0)  # where the present stage began
        self.high = dict.fromkeys(AXES, 0.0)  # the farthest so far
        self.stage: str | None = None

    def place(self, line: dict[str, Any]) -> dict[str, float] | None:
        """Return `{axis}_total` for one event; None if it is no news (a step done again)."""
        if line["event"] == "resume":
            return None
        if line["event"] == "train":
            if line["stage"] != self.stage:
                self.stage, self.base = line["stage"], dict(self.high)
            here = {axis: self.base[axis] + (line.get(axis) or 0) for axis in AXES}
            if here["step"] <= self.high["step"]:
                return None
            self.high = {axis: max(here[axis], self.high[axis]) for axis in AXES}
        if line["event"] == "stage":
            self.stage = None  # finished: if it ever trains again, that comes on top
        return {f"{axis}_total": value for axis, value in self.high.items()}


class WandbView:
    """One W&B run that follows one run folder; only rank 0 has one."""

    def __init__(
        self, settings: TrackingSettings, folder: Path, run: str, config: dict[str, Any]
    ) -> None:
        """Open the W&B run named `run` of the run folder `folder`, with `config` as its settings.

        WANDB_MODE comes before `settings.mode`. Never raises for W&B's sake.
        """
        self._events = folder / "events.jsonl"
        self._position = folder / "wandb" / "position.json"
        self._totals = Totals()
        self._offset = 0  # bytes of the file that were read
        self._run: Any = None
        try:
            self._id = _run_id(folder / "wandb-id")
            self._run = _start(settings, folder, {"id": self._id, "name": run, "config": config})
            self._skip_what_was_logged()
        except Exception as error:
            self._give_up(error)

    def update(self) -> None:
        """Log the events that were appended since the last call."""
        if self._run is None:
            return
        try:
            check_fence(self._position)  # what a later start logs is not ours to repeat
            lines = self._new_lines()
            for line in lines:
                if totals := self._totals.place(line):
                    self._run.log({**totals, **_numbers(line.get("metrics") or {})})
            if lines:
                write_json(self._position, {"id": self._id, "offset": self._offset})
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """Log what is new and end the W&B run."""
        self.update()
        try:
            if self._run is not None:
                self._run.finish()
        except Exception as error:
            self._give_up(error)
        self._run = None

    def _new_lines(self, end: int | None = None) -> list[dict[str, Any]]:
        """Read whole lines from the offset on (up to byte `end`), and move the offset."""
        if not self._events.exists():
            return []
        with self._events.open("rb") as handle:
            handle.seek(self._offset)
            data = handle.read() if end is None else handle.read(end - self._offset)
        data = data[: data.rfind(b"\n") + 1]  # a line without its end is not written yet
        self._offset += len(data)
        return [line for raw in data.splitlines() if (line := _event(raw))]

    def _skip_what_was_logged(self) -> None:
        """Count the events that an earlier process logged under the same id, without logging."""
        if not self._position.exists():
            return
        position = read_json(self._position)
        if position["id"] == self._id:
            for line in self._new_lines(end=position["offset"]):
                self._totals.place(line)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        logger.warning("W&B stopped (%s); events.jsonl keeps everything", reason)


def _run_id(path: Path) -> str:
    """Return the W&B id of the run folder; the first caller makes it."""
    if not path.exists():
        write_text(path, secrets.token_hex(4) + "\n")
    return path.read_text(encoding="utf-8").strip()


def _mode(settings: TrackingSettings) -> Any:  # W&B itself refuses what it does not know
    return os.environ.get("WANDB_MODE") or settings.mode


def _start(settings: TrackingSettings, folder: Path, identity: dict[str, Any]) -> Any:
    """Start the W&B run: files under `folder/wandb/`, nothing printed, the terminal left alone."""
    import wandb

    (folder / "wandb").mkdir(exist_ok=True)
    quiet = wandb.Settings(
        mode=_mode(settings),
        silent=True,
        console="off",
        init_timeout=INIT_SECONDS,
        login_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        disable_git=True,
        x_disable_meta=True,
    )
    wandb.setup(settings=quiet)  # else W&B looks its server up even when offline
    run = wandb.init(
        project=settings.project,
        entity=settings.entity,
        group=settings.group,
        dir=folder,
        resume="allow",
        settings=quiet,
        **identity,
    )
    # Slurm's SIGTERM ends W&B's helper; its hooks would then raise in imports that are none of its
    with suppress(AttributeError):  # another version has none
        wandb.sdk.lib.import_hooks.unregister_all_post_import_hooks()
    run.define_metric("tokens_total")
    run.define_metric("*", step_metric="tokens_total")
    return run


def _event(raw: bytes) -> dict[str, Any] | None:
    """Return the event of one line, or None if the line is torn."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and {"event", "stage"} <= set(line) else None


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if value is not None}


def open_view(
    settings: TrackingSettings, folder: Path, run: str, config: dict[str, Any]
) -> WandbView | NoView:
    """Return the view that `settings` and WANDB_MODE ask for."""
    if settings.name == "off" or _mode(settings) == "disabled":
        return NoView()
    return WandbView(settings, folder, run, config)
