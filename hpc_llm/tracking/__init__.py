"""Events of a run, and two views of them: Weights & Biases (W&B) and the console."""

from hpc_llm.tracking.compare import compare_runs
from hpc_llm.tracking.events import AXES, EVENTS, EventLog, read_events
from hpc_llm.tracking.progress import ProgressBar, duration, progress
from hpc_llm.tracking.wandb_view import NoView, WandbView, open_view

__all__ = [
    "AXES",
    "EVENTS",
    "EventLog",
    "NoView",
    "ProgressBar",
    "WandbView",
    "compare_runs",
    "duration",
    "open_view",
    "progress",
    "read_events",
]
