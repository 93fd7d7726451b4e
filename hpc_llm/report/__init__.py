"""What a run is told with: a table, pictures, one page and the model card."""

from hpc_llm.report.card import model_card, write_model_card
from hpc_llm.report.page import write_report
from hpc_llm.report.sweep import (
    Figures,
    TrialRow,
    best_of,
    read_figures,
    short_names,
    sweep_table,
)
from hpc_llm.report.sweep_plot import draw_sweep
from hpc_llm.report.tables import print_summary, summary_table

__all__ = [
    "Figures",
    "TrialRow",
    "best_of",
    "draw_sweep",
    "model_card",
    "print_summary",
    "read_figures",
    "short_names",
    "summary_table",
    "sweep_table",
    "write_model_card",
    "write_report",
]
