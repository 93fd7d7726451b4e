"""Settings of the evaluation on held-out text and tasks (`conf/evaluation/`)."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, require_positive
from hpc_llm.settings.task import TaskSettings, load_task

__all__ = ["EvaluationSettings"]


@dataclass(kw_only=True)
class EvaluationSettings:
    """How bits per byte are measured (sliding window over whole documents, each token once), and
    which tasks are evaluated."""

    window: int
    """Context length in tokens; never above the positions of the model."""
    stride: int
    """Stride of the window in tokens; the rest of it is context."""
    batch_tokens: int
    """Tokens of one forward pass."""
    test_bytes: int
    """Maximum bytes of test documents evaluated per language."""
    tune_bytes: int
    """The same for tune documents, which are evaluated once per phi."""
    partition: bool | None = None
    """Partition the model over the ranks (ZeRO-3) instead of loading it on each device; null: if it
    does not fit one GPU. Does not change the results beyond rounding."""
    tasks: list[str] = field(default_factory=list)
    """Benchmark tasks: names of files in `conf/task/`."""
    task_points: list[str] = field(default_factory=lambda: ["base", "corrected"])
    """Points of the recipe at which tasks are evaluated."""
    task_folder: str | None = None
    """Folder of the files of tasks; null: the current folder."""
    task_files: dict[str, list[str]] = field(default_factory=dict)
    """Files of a task instead of those in its YAML file, relative to the current folder."""
    task_limit: int | None = None
    """Maximum number of questions per task, evenly spaced over its records; null: all."""

    def __post_init__(self) -> None:
        """Check the values, and read the settings of the tasks."""
        check_fields(self, "evaluation")
        for key in ("window", "stride", "batch_tokens", "test_bytes", "tune_bytes"):
            require_positive(f"evaluation.{key}", getattr(self, key))
        if self.task_limit is not None:
            require_positive("evaluation.task_limit", self.task_limit)
        for name in self.tasks:
            if self.tasks.count(name) > 1:
                raise UserError("evaluation.tasks", name, "is given twice", "name each task once")
            load_task(name)
        for name, files in self.task_files.items():
            key = f"evaluation.task_files.{name}"
            if name not in self.tasks:
                chosen = ", ".join(self.tasks) or "none"
                raise UserError(key, None, f"is not in evaluation.tasks: {chosen}", "add the task")
            if not files:
                raise UserError(key, "[]", "has no files", "give one or more")

    def tasks_at(self, point: str) -> list[str]:
        """Return the tasks evaluated at a point."""
        return self.tasks if point in self.task_points else []

    def task(self, name: str) -> TaskSettings:
        """Return the settings of a task, with the files that this configuration gives it."""
        task = load_task(name)
        folder = Path(self.task_folder or "")
        files = self.task_files.get(name) or [str(folder / file) for file in task.files]
        return replace(task, files=files)
