"""`RunConfig`: the whole configuration of a run, one field for each group of `conf/`."""

from dataclasses import dataclass
from pathlib import Path

from hpc_llm.errors import UserError
from hpc_llm.settings.accounting import AccountingSettings
from hpc_llm.settings.budget import BudgetSettings
from hpc_llm.settings.checkpoint import CheckpointSettings
from hpc_llm.settings.corpus import CorpusSettings
from hpc_llm.settings.correct import CorrectSettings
from hpc_llm.settings.evaluation import EvaluationSettings
from hpc_llm.settings.guards import GuardSettings
from hpc_llm.settings.hardware import ClusterSettings, HardwareSettings
from hpc_llm.settings.launch import PLACES, LaunchSettings, memory_gib, walltime_minutes
from hpc_llm.settings.model import ModelSettings
from hpc_llm.settings.plan import PlanSettings
from hpc_llm.settings.preflight import PreflightSettings
from hpc_llm.settings.recipe import RecipeSettings
from hpc_llm.settings.replay import ReplaySettings
from hpc_llm.settings.schedule import ScheduleSettings
from hpc_llm.settings.tokenizer import TokenizerSettings
from hpc_llm.settings.tracking import TrackingSettings
from hpc_llm.settings.train import TrainSettings
from hpc_llm.settings.transplant import TransplantSettings
from hpc_llm.settings.zero import ZeroSettings

__all__ = ["RunConfig"]


@dataclass(kw_only=True)
class RunConfig:
    """Everything a run depends on; `runs/<run>/config.yaml` holds it resolved."""

    run: str | None
    """Name of the run folder; null: the model's name."""
    runs_dir: str
    """Folder of all run folders."""
    seed: int
    """Seed of every random choice."""
    model: ModelSettings
    corpus: CorpusSettings
    tokenizer: TokenizerSettings
    transplant: TransplantSettings
    recipe: RecipeSettings
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
    replay: ReplaySettings
    preflight: PreflightSettings

    def __post_init__(self) -> None:
        """Check what must go together."""
        if self.train.compile and self.zero.stage == 3:
            raise UserError(
                "train.compile=true: not with zero.stage=3, which gathers the weights by hooks "
                "inside the layers; give zero.stage=2, or train.compile=false"
            )
        if self.checkpoint.layout == "sharded" and self.zero.stage == 0:
            raise UserError(
                "checkpoint.layout=sharded: zero.stage=0 divides nothing among the ranks; give "
                "checkpoint.layout=whole, or zero=stage1"
            )

        self._check_site()

    def _check_site(self) -> None:
        """Refuse what the nodes of the cluster's partition do not give."""
        launch, cluster = self.launch, self.cluster
        if launch.name != "slurm":
            return
        on_gpus = self.hardware.kind == "gpu"
        if on_gpus and launch.processes not in (1, cluster.devices_per_node):
            raise UserError(
                f"launch.processes={launch.processes}: on nodes with GPUs there is a rank for each "
                f"of cluster.devices_per_node={cluster.devices_per_node}; leave it out"
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
                f"{key}={text}: {self.cluster.name} ends jobs after {most:g} hours; give "
                f"{key}={most:g}:00:00 or less: a job is requeued before its limit and goes on"
            )

    def _check_memory(self, key: str, text: str) -> None:
        most, asked = self.cluster.memory_gib_per_node, memory_gib(text, key)
        if most is not None and asked > most:
            raise UserError(
                f"{key}={text}: a node of {self.cluster.name} has {most:g} GiB for jobs; give "
                f"{key}={most:g}G or less, or 0 for all of it"
            )

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.runs_dir).expanduser() / (self.run or self.model.label)
