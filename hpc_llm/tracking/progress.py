"""Progress of a stage: a bar on a terminal, else a plain line every few seconds.

Both go to stderr. The plain line in the log of a batch job:
`lora  120/450  loss 3.21  14,100 tokens/s  ETA 1:12`.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

__all__ = ["ProgressBar", "duration", "progress"]

INTERVAL_SECONDS = 10.0  # between plain lines


class ProgressBar(Protocol):
    """What `progress` yields: a bar or plain lines."""

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show that `step` is done, with its metrics."""


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _metrics_text(metrics: Mapping[str, float]) -> str:
    """Return `loss 3.21  14,100 tokens/s`: a name with a slash follows its value like a unit."""
    parts = []
    for name, value in metrics.items():
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        parts.append(f"{text} {name}" if "/" in name else f"{name} {text}")
    return "  ".join(parts)


class Lines:
    """ProgressBar as plain lines, at most one every `interval_seconds`, and always the last."""

    def __init__(
        self, label: str, total: int, start: int, stream: TextIO, interval_seconds: float
    ) -> None:
        """Count from `start` to `total` steps on `stream`."""
        self._label, self._total, self._start = label, total, start
        self._stream, self._interval_seconds = stream, interval_seconds
        self._began = self._written = time.monotonic()
        self._pending: str | None = None

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a line if the interval is over; otherwise keep it for the end."""
        now = time.monotonic()
        left = (now - self._began) * (self._total - step) / max(step - self._start, 1)
        parts = [
            self._label,
            f"{step}/{self._total}",
            _metrics_text(metrics),
            f"ETA {duration(left)}",
        ]
        self._pending = "  ".join(part for part in parts if part)
        if now - self._written >= self._interval_seconds:
            self._written = now
            self.flush()

    def flush(self) -> None:
        """Write the pending line."""
        if self._pending is not None:
            print(self._pending, file=self._stream, flush=True)
            self._pending = None


class Bar:
    """ProgressBar as a rich bar; `task` is the bar's only task."""

    def __init__(self, bar: Any, task: Any) -> None:
        """Move the `task` of a `rich.progress.ProgressBar`."""
        self._bar, self._task = bar, task

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Move the bar to `step`."""
        self._bar.update(self._task, completed=step, metrics=_metrics_text(metrics))


@contextmanager
def progress(
    label: str,
    total: int,
    *,
    start: int = 0,
    stream: TextIO | None = None,
    interval_seconds: float = INTERVAL_SECONDS,
) -> Iterator[ProgressBar]:
    """Show the steps of `label` from `start` (after a resume) to `total`; on stderr by default.

    A terminal shows a bar, anything else a plain line at most every `interval_seconds`.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        lines = Lines(label, total, start, stream, interval_seconds)
        try:
            yield lines
        finally:
            lines.flush()
        return
    from rich import progress as columns
    from rich.console import Console

    with columns.Progress(
        columns.TextColumn("{task.description}"),
        columns.BarColumn(bar_width=24),
        columns.MofNCompleteColumn(),
        columns.TextColumn("{task.fields[metrics]}"),
        columns.TimeRemainingColumn(),
        console=Console(file=stream),
    ) as bar:
        yield Bar(bar, bar.add_task(label, total=total, completed=start, metrics=""))
