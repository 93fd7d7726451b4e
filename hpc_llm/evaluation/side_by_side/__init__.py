"""Side by side: people compare answers of models. numpy and scipy, no torch.

`study_power` says what a study can detect; `assign` who sees what; `Study` is the key that stays
with the researcher; `read_votes` reads the exported answers, and `evaluate` returns the result.
"""

from hpc_llm.evaluation.side_by_side.assignment import Card, Design, assign
from hpc_llm.evaluation.side_by_side.power import LEVEL, POWER, Power, study_power
from hpc_llm.evaluation.side_by_side.result import evaluate
from hpc_llm.evaluation.side_by_side.study import Study, read_questions
from hpc_llm.evaluation.side_by_side.votes import Vote, read_votes

__all__ = [
    "LEVEL",
    "POWER",
    "Card",
    "Design",
    "Power",
    "Study",
    "Vote",
    "assign",
    "evaluate",
    "read_questions",
    "read_votes",
    "study_power",
]
