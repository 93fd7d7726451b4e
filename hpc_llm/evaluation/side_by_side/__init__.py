"""Side by side: people compare answers of models. No torch here.

`assign` says who sees what; `Study` is the key that stays with the researcher.
"""

from hpc_llm.evaluation.side_by_side.assignment import Card, Design, assign
from hpc_llm.evaluation.side_by_side.study import Study, read_questions

__all__ = ["Card", "Design", "Study", "assign", "read_questions"]
