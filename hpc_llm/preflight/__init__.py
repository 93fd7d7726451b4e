"""Preflight: measure all nodes before a long job and find slow or broken ones.

Judging (`metrics`, `judge`, `report`) needs no torch; measuring (`examine`) does.
"""

from hpc_llm.preflight.judge import judge
from hpc_llm.preflight.metrics import HostFigures, RankFigures, ReduceFigures, by_host
from hpc_llm.preflight.report import Report, write_report

__all__ = [
    "HostFigures",
    "RankFigures",
    "ReduceFigures",
    "Report",
    "by_host",
    "judge",
    "write_report",
]
