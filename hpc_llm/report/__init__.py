"""Views of a run: the summary table, plots, one page, the model card, the table of a sweep."""

from hpc_llm.report.card import model_card, write_model_card
from hpc_llm.report.coverage import journal_problems, uncharged_stages
from hpc_llm.report.measures import by_name, read_measures
from hpc_llm.report.page import write_report
from hpc_llm.report.sweep import (
    TrialResults,
    TrialRow,
    best_of,
    main_measure,
    read_results,
    short_names,
    sweep_table,
)
from hpc_llm.report.sweep_plot import draw_sweep
from hpc_llm.report.tables import print_summary, print_tokenizers, summary_table

__all__ = [
    "TrialResults",
    "TrialRow",
    "best_of",
    "by_name",
    "draw_sweep",
    "journal_problems",
    "main_measure",
    "model_card",
    "print_summary",
    "print_tokenizers",
    "read_measures",
    "read_results",
    "short_names",
    "summary_table",
    "sweep_table",
    "uncharged_stages",
    "write_model_card",
    "write_report",
]
