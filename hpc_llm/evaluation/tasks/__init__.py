"""Benchmark tasks from local files: questions with choices, scored by log-likelihood.

A task is one YAML file, `conf/task/NAME.yaml` (`hpc_llm.settings.task`). Its records become
questions (`.records`, without torch), whose choices a model scores (`.scorer`); metrics
(`.metrics`) and their intervals (`.results`) follow from the scores alone.
"""

from hpc_llm.evaluation.tasks.questions import Question, Scored
from hpc_llm.evaluation.tasks.records import read_questions, shot_paths, task_code, task_paths

__all__ = ["Question", "Scored", "read_questions", "shot_paths", "task_code", "task_paths"]
