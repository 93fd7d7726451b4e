"""Weights & Biases (W&B) as a view of `events.jsonl`: new events are logged as they are appended.

W&B needs a history that only grows, over axes that never decrease, while a run of several stages
crashes, resumes and is submitted again. So the view accumulates every axis over the stages
(`tokens_total`, ...), skips the steps that a resumed stage repeats (they are logged already), and
keeps the run's id in `wandb-id` and its offset in the file in `wandb/position.json`. When the
report is written, the measures of `summary.json` become W&B's summary, as `NAME/POINT`.
Training continues whatever W&B does: the first error is one warning, and the view is closed.
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
FINISH_SECONDS = 60  # to upload the rest; what remains stays on disk for `wandb sync`

logger = logging.getLogger(__name__)


class NoView:
    """No view: tracking is off."""

    def update(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Totals:
    """Axes accumulated over the stages of a run, so that none ever decreases."""

    def __init__(self) -> None:
        """Start at zero, before the first stage."""
        self.base = dict.fromkeys(AXES, 0.0)  # at the start of the current stage
        self.high = dict.fromkeys(AXES, 0.0)  # the maximum so far
        self.stage: str | None = None

    def place(self, line: dict[str, Any]) -> dict[str, float] | None:
        """Return `{axis}_total` for one event; None for a step that is logged already."""
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
            self.stage = None  # finished: if it trains again, that adds up
        return {f"{axis}_total": value for axis, value in self.high.items()}


class WandbView:
    """One W&B run of one run folder; only rank 0 has one."""

    def __init__(
        self, settings: TrackingSettings, folder: Path, run: str, config: dict[str, Any]
    ) -> None:
        """Open the W&B run named `run` of the run folder `folder`, with `config` as its config.

        WANDB_MODE takes precedence over `settings.mode`. Errors of W&B are logged, not raised.
        """
        self._events = folder / "events.jsonl"
        self._summary = folder / "summary.json"
        self._position = folder / "wandb" / "position.json"
        self._totals = Totals()
        self._offset = 0  # in the file, bytes
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
            check_fence(self._position)  # a later start logs instead
            lines = self._new_lines()
            for line in lines:
                if totals := self._totals.place(line):
                    self._run.log({**totals, **_numbers(line.get("metrics") or {})})
            if any(line["event"] == "stage" and line["stage"] == "report" for line in lines):
                self._run.summary.update(_measures(self._summary))
            if lines:
                write_json(self._position, {"id": self._id, "offset": self._offset})
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """Log new events and end the W&B run."""
        self.update()
        try:
            if self._run is not None:
                self._run.finish()
        except Exception as error:
            self._give_up(error)
        self._run = None

    def _new_lines(self, end: int | None = None) -> list[dict[str, Any]]:
        """Read complete lines from the offset (up to byte `end`), and advance the offset."""
        if not self._events.exists():
            return []
        with self._events.open("rb") as handle:
            handle.seek(self._offset)
            data = handle.read() if end is None else handle.read(end - self._offset)
        data = data[: data.rfind(b"\n") + 1]  # an incomplete line is still being written
        self._offset += len(data)
        return [line for raw in data.splitlines() if (line := _event(raw))]

    def _skip_what_was_logged(self) -> None:
        """Accumulate the events that an earlier process logged under the same id."""
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
    """Return the W&B id of the run folder; the first caller creates it."""
    if not path.exists():
        write_text(path, secrets.token_hex(4) + "\n")
    return path.read_text(encoding="utf-8").strip()


def _mode(settings: TrackingSettings) -> Any:  # W&B itself validates it
    return os.environ.get("WANDB_MODE") or settings.mode


def _start(settings: TrackingSettings, folder: Path, identity: dict[str, Any]) -> Any:
    """Start the W&B run: files under `folder/wandb/`, no output, no console capture."""
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
    wandb.setup(settings=quiet)  # otherwise W&B contacts its server even when offline
    run = wandb.init(
        project=settings.project,
        entity=settings.entity,
        group=settings.group,
        dir=folder,
        resume="allow",
        settings=quiet,
        **identity,
    )
    # Slurm's SIGTERM ends W&B's helper; its hooks would then raise in imports of other packages
    with suppress(AttributeError):  # other versions have none
        wandb.sdk.lib.import_hooks.unregister_all_post_import_hooks()
    run.define_metric("tokens_total")
    run.define_metric("*", step_metric="tokens_total")
    return run


def _event(raw: bytes) -> dict[str, Any] | None:
    """Return the event of one line, or None if the line is incomplete."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and {"event", "stage"} <= set(line) else None


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if value is not None}


def _measures(path: Path) -> dict[str, Any]:
    """Return the measures of a `summary.json` as `NAME/POINT`, `..._low` and `..._high`."""
    values = {}
    for name, column in read_json(path)["measures"].items():
        for point, measure in column.items():
            for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
                values[f"{name}/{point}{suffix}"] = measure[key]
    return _numbers(values)


def open_view(
    settings: TrackingSettings, folder: Path, run: str, config: dict[str, Any]
) -> WandbView | NoView:
    """Return the view that `settings` and WANDB_MODE request."""
    if settings.name == "off" or _mode(settings) == "disabled":
        return NoView()
    return WandbView(settings, folder, run, config)
