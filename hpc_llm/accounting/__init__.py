"""Exact FLOPs, time and money of a run, before it and after; nothing here needs torch."""

from hpc_llm.accounting.architecture import Architecture, ParameterCount, parameter_count
from hpc_llm.accounting.bill import Bill, ledger_report, run_bill
from hpc_llm.accounting.flops import StepFlops, flops_per_token, pf_days, step_flops
from hpc_llm.accounting.hardware import Machine, device, find_device
from hpc_llm.accounting.ledger import Ledger, LedgerRow, LedgerTotals
from hpc_llm.accounting.memory import MemoryPlan, TrainingSetup, fits, memory
from hpc_llm.accounting.method import Method, stage_method, trainable_parameters
from hpc_llm.accounting.plan_text import plan_answer, render_plan
from hpc_llm.accounting.planning import Plan, make_plan
from hpc_llm.accounting.projection import Projection, project
from hpc_llm.accounting.traffic import network_seconds, zero_traffic
from hpc_llm.accounting.utilisation import utilisation_metrics

__all__ = [
    "Architecture",
    "Bill",
    "Ledger",
    "LedgerRow",
    "LedgerTotals",
    "Machine",
    "MemoryPlan",
    "Method",
    "ParameterCount",
    "Plan",
    "Projection",
    "StepFlops",
    "TrainingSetup",
    "device",
    "find_device",
    "fits",
    "flops_per_token",
    "ledger_report",
    "make_plan",
    "memory",
    "network_seconds",
    "parameter_count",
    "pf_days",
    "plan_answer",
    "project",
    "render_plan",
    "run_bill",
    "stage_method",
    "step_flops",
    "trainable_parameters",
    "utilisation_metrics",
    "zero_traffic",
]
