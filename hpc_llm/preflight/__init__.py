"""Nodes tried out before a long job: figures of each, and which node is slow or broken.

Judging (`figures`, `judge`, `report`) needs no torch; measuring (`examine`) does.
"""

from hpc_llm.preflight.figures import HostFigures, RankFigures, ReduceFigures, by_host
from hpc_llm.preflight.judge import judge
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
