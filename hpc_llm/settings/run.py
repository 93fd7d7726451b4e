"""`RunConfig`: the whole configuration of a run, one field per group of `conf/`."""

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from hpc_llm.distributed import layout_of
from hpc_llm.errors import UserError
from hpc_llm.settings.accounting import AccountingSettings
from hpc_llm.settings.budget import BudgetSettings
from hpc_llm.settings.checkpoint import CheckpointSettings
from hpc_llm.settings.checks import check_fields, check_folder_name, count
from hpc_llm.settings.corpus import CorpusSettings
from hpc_llm.settings.correct import CorrectSettings
from hpc_llm.settings.evaluation import EvaluationSettings
from hpc_llm.settings.guards import GuardSettings
from hpc_llm.settings.hardware import ClusterSettings, HardwareSettings
from hpc_llm.settings.launch import PLACES, LaunchSettings, memory_gib, walltime_minutes
from hpc_llm.settings.meter import check_meter
from hpc_llm.settings.mixture import Mixture, check_replay, mixture_of
from hpc_llm.settings.model import ModelSettings
from hpc_llm.settings.parallel import ParallelSettings
from hpc_llm.settings.plan import PlanSettings
from hpc_llm.settings.preflight import PreflightSettings
from hpc_llm.settings.recipe import RecipeSettings
from hpc_llm.settings.rerun import RerunSettings
from hpc_llm.settings.sbs import SbsSettings
from hpc_llm.settings.schedule import ScheduleSettings
from hpc_llm.settings.stage import SCRATCH, UNTRAINED, StageSettings
from hpc_llm.settings.tokenizer import TokenizerSettings
from hpc_llm.settings.tracking import TrackingSettings
from hpc_llm.settings.train import TrainSettings
from hpc_llm.settings.transplant import TransplantSettings
from hpc_llm.settings.zero import ZeroSettings

__all__ = ["RunConfig"]


@dataclass(kw_only=True)
class RunConfig:
    """Everything a run depends on; resolved in `runs/<run>/config.yaml`."""

    run: str | None
    """Name of the run folder; null: the model's name."""
    runs_dir: str
    """Folder of all run folders."""
    seed: int = count(2**32 - 1, 0)
    """Seed of every random choice."""
    cache: bool
    """Share finished stages with runs in `runs_dir` that have equal settings for them."""
    model: ModelSettings
    corpus: CorpusSettings
    tokenizer: TokenizerSettings
    transplant: TransplantSettings
    recipe: RecipeSettings
    stages: dict[str, Any]
    """The training stages by name, in order; each value is the `StageSettings` of its method."""
    train: TrainSettings
    zero: ZeroSettings
    schedule: ScheduleSettings
    correct: CorrectSettings
    evaluation: EvaluationSettings
    hardware: HardwareSettings
    cluster: ClusterSettings
    launch: LaunchSettings
    tracking: TrackingSettings
    plan: PlanSettings
    accounting: AccountingSettings
    budget: BudgetSettings
    checkpoint: CheckpointSettings
    guards: GuardSettings
    rerun: RerunSettings
    preflight: PreflightSettings
    parallel: ParallelSettings = field(default_factory=ParallelSettings)
    sbs: SbsSettings = field(default_factory=SbsSettings)
    compose: Any = None
    """A composition instead of a recipe: the `ComposeSettings` of its file; null: none."""

    def __post_init__(self) -> None:
        """Check the values and combinations of settings."""
        check_fields(self, "", ("run", "runs_dir", "seed"))
        named = "run" if self.run else "model.name" if self.model.name else "model.path"
        check_folder_name(named, self.folder_name, self.runs_dir)
        if self.train.compile and self.zero.stage == 3:
            raise UserError(
                "train.compile",
                "true",
                "zero.stage=3 gathers the weights in hooks inside the layers",
                "use zero.stage=2, or train.compile=false",
            )
        if self.checkpoint.layout == "sharded" and self.zero.stage == 0:
            raise UserError(
                "checkpoint.layout",
                "sharded",
                "zero.stage=0 does not partition states",
                "use checkpoint.layout=whole, or zero=stage1",
            )
        check_replay(self.corpus, self.train.replay)
        check_meter(self.evaluation.meter, self.corpus, self.parallel)
        self.parallel.check(self.train, self.zero, self.checkpoint, self.model.attention)
        on_gpus, slurm = self.hardware.kind == "gpu", self.launch.name == "slurm"
        each = self.planned_ranks // self.cluster.nodes
        self.zero.check_devices(gpu=on_gpus, node_ranks=each if on_gpus or slurm else None)
        self._check_stages()
        self._check_site()

    @property
    def text_seed(self) -> int:
        """Seed of the held-out documents and of the tokenizer."""
        return self.seed if self.corpus.seed is None else self.corpus.seed

    @property
    def adaptation(self) -> list[str]:
        """Names of the stages that train the transplanted model, in order."""
        return [name for name, stage in self.stages.items() if stage.from_stage != SCRATCH]

    @property
    def pretraining(self) -> str | None:
        """Name of the stage that pretrains the base model; None: its weights are given."""
        scratch = (name for name, stage in self.stages.items() if stage.from_stage == SCRATCH)
        return next(scratch, None) if self.model.path is None else None

    def parent(self, name: str) -> str:
        """Return the starting point of a stage: transplant, STAGE or STAGE@STEP.

        That of a stage from untrained weights is transplant, whose shape and tokenizer it has.
        """
        stage: StageSettings = self.stages[name]
        if stage.from_stage == UNTRAINED:
            return "transplant"
        if stage.from_stage is not None:
            return stage.from_stage
        before = self.adaptation[: self.adaptation.index(name)]
        return before[-1] if before else "transplant"

    def lineage(self, name: str) -> list[str]:
        """Return the stages whose results make up the model after `name`, in order, `name` last.

        A branch of STAGE@STEP replaces STAGE: its result includes the training of STAGE.
        """
        found = [name]
        while (parent := self.parent(found[0])) != "transplant":
            stage, branch, _ = parent.partition("@")
            if branch:
                grandparent = self.lineage(stage)[:-1]
                return [*grandparent, *found]
            found.insert(0, stage)
        return found

    def branch_steps(self, name: str) -> list[int]:
        """Return the steps of a stage from which later stages branch, ascending."""
        branches = [stage.branch for stage in self.stages.values() if stage.branch is not None]
        return sorted({step for stage, step in branches if stage == name})

    def text_of(self, name: str) -> Mixture:
        """Return the mixture of texts of a stage."""
        return mixture_of(self.corpus, self.stages[name], self.train.replay)

    def for_stage(self, name: str) -> "RunConfig":
        """Return the effective configuration of one stage: with its own values in `train` and
        `schedule`."""
        stage: StageSettings = self.stages[name]
        keys = ("sequence_length", "batch_tokens", "micro_batch_tokens")
        own = {key: getattr(stage, key) for key in keys if getattr(stage, key) is not None}
        if not own and not stage.schedule:
            return self
        none = dict.fromkeys(keys)
        return replace(
            self,
            train=replace(self.train, **own),
            schedule=replace(self.schedule, **(stage.schedule or {})),
            stages={n: replace(s, schedule=None, **none) for n, s in self.stages.items()},
        )

    def _check_stages(self) -> None:
        """Check each stage and its starting point."""
        for number, (name, stage) in enumerate(self.stages.items()):
            key = f"stages.{name}"
            stage.check(key)
            if stage.from_stage == SCRATCH and number:
                raise UserError(
                    f"{key}.from", SCRATCH, "only the first stage can train from scratch"
                )
            self._check_parent(name)
            self._check_schedule(name)
            try:
                self.for_stage(name)
            except UserError as error:
                inner = error.key.removeprefix("train.")
                raise UserError(f"{key}.{inner}", error.value, error.rule, error.fix) from error

    def _check_parent(self, name: str) -> None:
        stage = self.stages[name]
        if stage.from_stage in (None, SCRATCH, UNTRAINED, "transplant"):
            return
        parent = stage.from_stage.partition("@")[0]
        before = self.adaptation[: self.adaptation.index(name)]
        if parent not in before:
            known = ", ".join(["transplant", *before])
            raise UserError(
                f"stages.{name}.from", stage.from_stage, "no such stage before it", f"use {known}"
            )
        if stage.branch is None:
            return
        if self.stages[parent].method != stage.method:
            raise UserError(
                f"stages.{name}.method",
                stage.method,
                f"a branch of {stage.from_stage} continues its optimizer states, so it must use "
                f"the same method, {self.stages[parent].method}",
                f"use {self.stages[parent].method}, or from={parent}",
            )
        if stage.branch[1] > self.stages[parent].steps:
            raise UserError(
                f"stages.{name}.from",
                stage.from_stage,
                f"{parent} has {self.stages[parent].steps} steps",
                f"use {parent}@STEP up to {self.stages[parent].steps}",
            )

    def _check_schedule(self, name: str) -> None:
        own = self.stages[name].schedule or {}
        known = [field.name for field in fields(ScheduleSettings)]
        for key in own:
            if key not in known:
                raise UserError(
                    f"stages.{name}.schedule.{key}", own[key], "no such setting",
                    f"choose one of {', '.join(known)}",
                )  # fmt: skip

    def _check_site(self) -> None:
        """Raise `UserError` for resources above those of the cluster's nodes and partition."""
        launch, cluster = self.launch, self.cluster
        if launch.name != "slurm":
            return
        layout_of(self.planned_ranks, self.parallel.sequence, self.parallel.tensor)
        on_gpus = self.hardware.kind == "gpu"
        if on_gpus and launch.processes not in (1, cluster.devices_per_node):
            raise UserError(
                "launch.processes",
                launch.processes,
                "on GPU nodes there is one rank per device, cluster.devices_per_node="
                f"{cluster.devices_per_node}",
                "remove it",
            )
        asked = [("launch", launch.partition, launch.qos, launch.time, launch.mem)]
        for part, own in launch.parts.items():
            values = (own.get(key) for key in ("partition", "qos", "time", "mem"))
            queue, qos, time, mem = (None if value is None else str(value) for value in values)
            if PLACES[part] == "cpu":
                queue = queue or launch.cpu_partition
            queue = queue or launch.partition
            asked.append((f"launch.parts.{part}", queue, qos or launch.qos, time, mem))
        for where, partition, qos, time, mem in asked:
            if partition in (None, cluster.partition):
                if time is not None and qos is None:
                    self._check_time(f"{where}.time", time)
                if mem is not None:
                    self._check_memory(f"{where}.mem", mem)

    def _check_time(self, key: str, text: str) -> None:
        most, minutes = self.cluster.max_hours, walltime_minutes(text, key)
        if most is not None and (minutes is None or minutes > 60 * most):
            raise UserError(
                key,
                text,
                f"{self.cluster.name} ends jobs after {most:g} hours",
                f"use {most:g}:00:00 or less: a job is requeued before its limit and resumes",
            )

    def _check_memory(self, key: str, text: str) -> None:
        most, asked = self.cluster.memory_gib_per_node, memory_gib(text, key)
        if most is not None and asked > most:
            raise UserError(
                key,
                text,
                f"a node of {self.cluster.name} has {most:g} GiB for jobs",
                f"use {most:g}G or less, or 0 for all of it",
            )

    @property
    def planned_ranks(self) -> int:
        """Ranks of the job: one per GPU, or `launch.processes` per node."""
        each = self.launch.processes if self.hardware.kind == "cpu" else None
        return self.cluster.nodes * (each or self.cluster.devices_per_node)

    @property
    def folder_name(self) -> str:
        """The name of the run folder: that of the run, or of what it makes."""
        made: str = self.model.label if self.compose is None else self.compose.kind
        return self.run or made

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(os.path.expanduser(self.runs_dir)) / self.folder_name
