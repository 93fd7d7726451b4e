"""The change of a task between two points, paired by question."""

import json

import numpy as np
import pytest

from hpc_llm.evaluation.tasks.files import changes_at, write_task
from hpc_llm.evaluation.tasks.paired import change_from, mcnemar
from hpc_llm.evaluation.tasks.questions import Question
from hpc_llm.evaluation.tasks.results import item_line
from hpc_llm.settings.task import TaskSettings

TASK = TaskSettings(files=["x.jsonl"], kind="choice", choices=["a", "b"], metric=["acc"])


def lines(right):
    """Return the lines of questions of two choices, answered correctly or not."""
    found = []
    for index, is_right in enumerate(right):
        question = Question(id=str(index), prompt="", choices=("a", "b"), gold=0)
        found.append(item_line(question, [-1.0, -2.0] if is_right else [-2.0, -1.0], False, "acc"))
    return found


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [(0, 0, 1.0), (5, 5, 1.0), (10, 0, 2 * 0.5**10), (1, 8, 2 * (1 + 9) * 0.5**9)],
)
def test_mcnemar_is_the_sign_test_of_discordant_questions(gained, lost, expected):
    assert mcnemar(gained, lost) == pytest.approx(expected)
    assert mcnemar(lost, gained) == pytest.approx(expected)


def test_the_interval_is_that_of_paired_differences():
    random = np.random.default_rng(2)
    before = random.random(300) < 0.5
    after = before | (random.random(300) < 0.2)
    change = change_from(lines(before), lines(after), TASK, 1)
    differences = after.astype(float) - before
    assert change.measure.value == pytest.approx(differences.mean())
    error = differences.std() / np.sqrt(300)
    assert change.measure.low == pytest.approx(differences.mean() - 1.96 * error, abs=0.012)
    assert change.measure.high == pytest.approx(differences.mean() + 1.96 * error, abs=0.012)
    assert (change.gained, change.lost) == (int((after & ~before).sum()), 0)
    same = change_from(lines(before), lines(before), TASK, 1)
    assert (same.measure.value, same.measure.low, same.measure.high) == (0, 0, 0)
    assert same.p_value == 1
    assert change_from(lines(before[:9]), lines(after), TASK, 1) is None


def test_changes_are_written_and_scores_at_chance_are_none(tmp_path):
    rows = {"base": [1, 0] * 30, "lora": [1, 1] * 28 + [0] * 4, "corrected": [0, 1] * 30}
    for point, right in rows.items():
        write_task(tmp_path / point, "mine", TASK, lines(right), 1)
    found = {point: changes_at(tmp_path / point, ["mine"]) for point in rows}
    assert found["base"] == found["corrected"] == {}  # the latter is at chance
    assert found["lora"]["mine"].value == pytest.approx(56 / 60 - 30 / 60)
    assert found["lora"]["mine"].low > 0
    result = json.loads((tmp_path / "corrected/mine.json").read_text())["change_from_base"]
    assert (result["gained"], result["lost"], result["mcnemar_p"]) == (30, 30, 1.0)
    assert "change_from_base" not in json.loads((tmp_path / "base/mine.json").read_text())
