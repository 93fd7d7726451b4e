"""What a run is told with: a table, pictures, one page and the model card."""

from hpc_llm.report.card import model_card, write_model_card
from hpc_llm.report.page import write_report
from hpc_llm.report.tables import print_summary, summary_table

__all__ = ["model_card", "print_summary", "summary_table", "write_model_card", "write_report"]
