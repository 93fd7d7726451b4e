"""Open a run folder for work: lock, stop requests, W&B, events and cost account."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from hpc_llm.distributed import Ranks, StopFlag, unreached
from hpc_llm.ensembles import model_folder
from hpc_llm.pipeline.account import Account
from hpc_llm.pipeline.context import Context
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.pipeline.lock import begun_here, hold_folder
from hpc_llm.pipeline.todo import unfinished
from hpc_llm.rundir import RunFolder, Start, note_start
from hpc_llm.settings import RunConfig
from hpc_llm.tracking import EventLog, NoView, WandbView, open_view

__all__ = ["open_context"]


@contextmanager
def open_context(
    cfg: RunConfig,
    stages: Sequence[Stage],
    folder: RunFolder,
    ranks: Ranks,
    verb: str,
    chosen: Sequence[Stage] | None = None,
) -> Iterator[Context]:
    """Open the context of a run; inside the block its folder is locked.

    Only stages in `chosen` may run. W&B is opened only if `verb` has something to do.
    """
    chosen = stages if chosen is None else chosen
    stop_file = folder.path / "stop" if ranks.is_first else None
    hours = cfg.train.max_hours
    deadline = None if hours is None else time.time() + 3600 * hours
    flag = StopFlag(
        stop_file=stop_file,
        deadline=deadline,
        deadline_name="train.max_hours",
        told=_note_request(folder) if ranks.is_first else None,
    )
    todo = unfinished(folder, chosen, verb)
    start = begun_here(cfg, folder, ranks, todo) if ranks.is_first else Start()
    with hold_folder(folder, ranks, start), flag:
        view: WandbView | NoView = NoView()
        if ranks.is_first and todo:
            with unreached():
                name = cfg.run or folder.path.name
                view = open_view(cfg.tracking, folder.path, name, asdict(cfg))
        try:
            yield Context(
                stages=tuple(stages),
                chosen=tuple(chosen),
                cfg=cfg,
                folder=folder,
                ranks=ranks,
                events=EventLog(folder.events),
                view=view,
                stop_reason=lambda: flag.reason,
                base=_base(cfg, folder),
                account=Account(cfg, folder.ledger, ranks, uuid.uuid4().hex[:12]),
            )
        finally:
            view.close()


def _base(cfg: RunConfig, folder: RunFolder) -> Path | str:
    """Return the model to which others are compared: the one to adapt, or to compose with."""
    if cfg.compose is not None and cfg.compose.reference is not None:
        return model_folder("compose", cfg.compose.reference)
    return cfg.model.path or folder.path / f"train/{cfg.pretraining}" / "model"


def _note_request(folder: RunFolder) -> Callable[[str], None]:
    return lambda reason: note_start(folder.starts, "asked", reason=reason)
