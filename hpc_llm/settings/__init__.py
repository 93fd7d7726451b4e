"""Typed settings: one file per group of `conf/`, and `RunConfig`, which has them all.

Imports only the standard library, so every package may use its settings. Values are validated in
`__post_init__`; an invalid one raises `UserError`.
"""

from hpc_llm.settings.accounting import AccountingSettings
from hpc_llm.settings.budget import BudgetSettings
from hpc_llm.settings.checkpoint import CheckpointSettings
from hpc_llm.settings.compose import ComposeSettings
from hpc_llm.settings.corpus import CorpusSettings
from hpc_llm.settings.correct import CorrectSettings
from hpc_llm.settings.evaluation import EvaluationSettings
from hpc_llm.settings.guards import GuardSettings
from hpc_llm.settings.hardware import ClusterSettings, HardwareSettings
from hpc_llm.settings.launch import LaunchSettings
from hpc_llm.settings.mixture import Mixture
from hpc_llm.settings.model import ModelSettings
from hpc_llm.settings.parallel import ParallelSettings
from hpc_llm.settings.plan import PlanSettings
from hpc_llm.settings.preflight import PreflightSettings
from hpc_llm.settings.recipe import RecipeSettings
from hpc_llm.settings.rerun import RerunSettings
from hpc_llm.settings.run import RunConfig
from hpc_llm.settings.sbs import SbsSettings
from hpc_llm.settings.schedule import ScheduleSettings
from hpc_llm.settings.sources import SourceSettings
from hpc_llm.settings.stage import StageSettings
from hpc_llm.settings.task import TaskSettings
from hpc_llm.settings.tokenizer import TokenizerSettings
from hpc_llm.settings.tracking import TrackingSettings
from hpc_llm.settings.train import RampSettings, TrainSettings
from hpc_llm.settings.transplant import DonorSettings, TransplantSettings
from hpc_llm.settings.zero import ZeroSettings

__all__ = [
    "AccountingSettings",
    "BudgetSettings",
    "CheckpointSettings",
    "ClusterSettings",
    "ComposeSettings",
    "CorpusSettings",
    "CorrectSettings",
    "DonorSettings",
    "EvaluationSettings",
    "GuardSettings",
    "HardwareSettings",
    "LaunchSettings",
    "Mixture",
    "ModelSettings",
    "ParallelSettings",
    "PlanSettings",
    "PreflightSettings",
    "RampSettings",
    "RecipeSettings",
    "RerunSettings",
    "RunConfig",
    "SbsSettings",
    "ScheduleSettings",
    "SourceSettings",
    "StageSettings",
    "TaskSettings",
    "TokenizerSettings",
    "TrackingSettings",
    "TrainSettings",
    "TransplantSettings",
    "ZeroSettings",
]
