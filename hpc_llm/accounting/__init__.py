"""Exact FLOPs, memory, time and money of a run, before and after it; nothing here needs torch."""

from hpc_llm.accounting.architecture import Architecture, ParameterCount, parameter_count
from hpc_llm.accounting.cost_report import CostReport, cost_report
from hpc_llm.accounting.cost_table import CostTable, cost_table
from hpc_llm.accounting.energy import EnergyCounter
from hpc_llm.accounting.flops import PF_DAY, StepFlops, flops_per_token, pf_days, step_flops
from hpc_llm.accounting.hardware import Machine, device, find_device
from hpc_llm.accounting.ledger import Ledger, LedgerRow, LedgerTotals, Spending
from hpc_llm.accounting.memory import MemoryPlan, TrainingSetup, fits, memory, memory_plan
from hpc_llm.accounting.method import Method, stage_method, trainable_parameters
from hpc_llm.accounting.model_file import context_length
from hpc_llm.accounting.money import middle_price, priced
from hpc_llm.accounting.projection import Projection, project
from hpc_llm.accounting.stage_flops import SOURCES, Count, StageFlops
from hpc_llm.accounting.traffic import NodeTraffic, network_seconds, node_traffic, zero_traffic
from hpc_llm.accounting.utilisation import utilisation_metrics

__all__ = [
    "PF_DAY",
    "SOURCES",
    "Architecture",
    "CostReport",
    "CostTable",
    "Count",
    "EnergyCounter",
    "Ledger",
    "LedgerRow",
    "LedgerTotals",
    "Machine",
    "MemoryPlan",
    "Method",
    "NodeTraffic",
    "ParameterCount",
    "Projection",
    "Spending",
    "StageFlops",
    "StepFlops",
    "TrainingSetup",
    "context_length",
    "cost_report",
    "cost_table",
    "device",
    "find_device",
    "fits",
    "flops_per_token",
    "memory",
    "memory_plan",
    "middle_price",
    "network_seconds",
    "node_traffic",
    "parameter_count",
    "pf_days",
    "priced",
    "project",
    "stage_method",
    "step_flops",
    "trainable_parameters",
    "utilisation_metrics",
    "zero_traffic",
]
