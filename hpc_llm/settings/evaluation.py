"""Settings of the evaluation on held-out text and tasks (`conf/evaluation/`)."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, require_positive
from hpc_llm.settings.meter import MeterSettings
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
    meter: MeterSettings = field(default_factory=MeterSettings)
    tasks: list[str] = field(default_factory=list)
    """Benchmark tasks: names of files in `conf/task/`."""
    task_points: list[str] = field(default_factory=lambda: ["base", "corrected"])
    """Points of the recipe at which tasks are evaluated."""
    task_folder: str | None = None
    """Folder of the files of tasks; null: the current folder."""
    task_files: dict[str, list[str]] = field(default_factory=dict)
    """Files of a task instead of those in its YAML file, relative to the current folder."""
    task_shots: dict[str, int] = field(default_factory=dict)
    """Solved examples before each question of a task, instead of the number in its YAML file."""
    task_limit: int | None = None
    """Maximum number of questions per task, evenly spaced over its records; null: all."""

    submission: bool = False
    """Write the answers to tasks of a benchmark with hidden answers (MERA) into an archive, instead
    of scores."""

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
        self._check_of_tasks()

    def _check_of_tasks(self) -> None:
        """Raise `UserError` for settings of single tasks that cannot be."""
        for key, given in (("task_files", self.task_files), ("task_shots", self.task_shots)):
            for name in given:
                self._check_chosen(f"evaluation.{key}.{name}", name)
        for name, files in self.task_files.items():
            if not files:
                key = f"evaluation.task_files.{name}"
                raise UserError(key, "[]", "has no files", "give one or more")
        for name, shots in self.task_shots.items():
            if shots < 0:
                key = f"evaluation.task_shots.{name}"
                raise UserError(key, shots, "must be 0 or more", "use 0 for none")

    def _check_chosen(self, key: str, name: str) -> None:
        """Raise `UserError` about `key` if the task `name` is not evaluated."""
        if name not in self.tasks:
            chosen = ", ".join(self.tasks) or "none"
            raise UserError(key, None, f"is not in evaluation.tasks: {chosen}", "add the task")

    def tasks_at(self, point: str) -> list[str]:
        """Return the tasks evaluated at a point."""
        return self.tasks if point in self.task_points else []

    def submits(self, task: TaskSettings) -> bool:
        """Return whether a task is answered for an archive, without scores."""
        return self.submission and task.submission is not None

    def task(self, name: str) -> TaskSettings:
        """Return the settings of a task, with the files and shots that this configuration gives it.

        Relative files of the task are in `task_folder`.
        """
        task = load_task(name)
        folder = Path(self.task_folder or "")
        files = self.task_files.get(name) or [str(folder / file) for file in task.files]
        shots_from = [str(folder / file) for file in task.shots_from]
        shots = self.task_shots.get(name, task.shots)
        return replace(task, files=files, shots=shots, shots_from=shots_from)
