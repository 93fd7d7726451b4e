"""What counts as a job that does not get on, and what does not."""

from dataclasses import replace

import pytest

from hpc_llm.pipeline.crash_loop import failed_before
from hpc_llm.rundir import Start

HERE = Start(job="7", hosts="node[1-2]", stage="train/lora", step=12, settings="s")
FAILED = {"code": 1, "why": "RuntimeError: x"}
LIMIT = {"code": 75, "why": "Stopped: SIGUSR1", "asked": "SIGUSR1"}


def starts(*ends: dict) -> list[Start]:
    """One job, restarted behind each of `ends`; the last start is the one that is judged."""
    made = [replace(HERE, number=n + 1, restart=n, **end) for n, end in enumerate(ends)]
    return [*made, replace(HERE, number=len(ends) + 1, restart=len(ends))]


def count(made: list[Start], states: tuple[str, ...] = (), most: int = 3) -> int:
    *earlier, now = made
    return len(failed_before(now, earlier, most, lambda _: list(states)))


@pytest.mark.parametrize(
    ("ends", "states", "found"),
    [
        pytest.param([FAILED] * 3, (), 3, id="three errors"),
        pytest.param([FAILED] * 2, (), 2, id="two errors"),
        pytest.param([{}] * 3, (), 3, id="killed, and nobody was asked"),
        pytest.param([{}] * 3, ("NODE_FAIL",) * 3, 3, id="three lost nodes"),
        pytest.param(
            [{"asked": "SIGTERM"}] * 3, ("NODE_FAIL",) * 3, 3, id="lost nodes, signalled others"
        ),
        pytest.param([FAILED, {}, FAILED], ("FAILED", "NODE_FAIL"), 3, id="mixed"),
        pytest.param([{}] * 3, ("PREEMPTED",) * 3, 0, id="preempted"),
        pytest.param([{}] * 3, ("REQUEUED",) * 3, 0, id="requeued by hand"),
        pytest.param([{"asked": "SIGTERM"}] * 3, (), 0, id="asked, and Slurm does not know"),
        pytest.param([{"code": 75}] * 3, (), 0, id="stopped in good order"),
        pytest.param([LIMIT] * 3, ("REQUEUED",) * 3, 3, id="no step before the time limit"),
        pytest.param([LIMIT] * 3, (), 3, id="the same, and Slurm does not know"),
        pytest.param([FAILED, LIMIT, LIMIT], (), 3, id="an error, then the time limit"),
        pytest.param([LIMIT] * 3, ("PREEMPTED",) * 3, 0, id="preempted with the same signal"),
        pytest.param([LIMIT | {"asked": "SIGTERM"}] * 3, ("REQUEUED",) * 3, 0, id="asked by hand"),
        pytest.param([{"code": 130}] * 3, (), 0, id="Ctrl-C"),
        pytest.param([{"code": 3}] * 3, (), 0, id="budget"),
        pytest.param([FAILED, FAILED, {"code": 75}, FAILED], (), 1, id="good order in between"),
        pytest.param([FAILED, FAILED, {"code": 2}, FAILED], (), 3, id="a wrong command in between"),
        pytest.param(
            [*[FAILED] * 3, {"code": 2, "refused": True}], (), 3, id="refused once, and again"
        ),
    ],
)
def test_of_one_job(ends: list[dict], states: tuple[str, ...], found: int) -> None:
    assert count(starts(*ends), states) == found


def test_scancel_and_submit_again_is_no_failure() -> None:
    killed = [replace(start, job=str(n), restart=0) for n, start in enumerate(starts({}, {}, {}))]
    assert count(killed) == 0
    asked = [replace(start, asked="SIGTERM") for start in killed]
    assert count(asked) == 0


def test_another_job_may_have_another_time_limit() -> None:
    *earlier, refused = starts(LIMIT, LIMIT, LIMIT)
    refused = replace(refused, code=2, refused=True)
    assert count([*earlier, refused, replace(HERE, number=5, job="8")]) == 0


def test_errors_of_jobs_that_were_queued_ahead_count() -> None:
    made = starts(FAILED, FAILED, FAILED)
    assert count([replace(start, job=str(n), restart=0) for n, start in enumerate(made)]) == 3


@pytest.mark.parametrize(
    "other", [{"step": 11}, {"stage": "train/embeddings"}, {"settings": "other"}]
)
def test_progress_or_a_change_restarts_the_count(other: dict) -> None:
    first, *rest = starts(FAILED, FAILED, FAILED)
    assert count([replace(first, **other), *rest]) == 2


def test_slurm_is_asked_only_where_it_matters() -> None:
    *earlier, now = starts({}, {})

    def refuse(_: str) -> list[str]:
        raise AssertionError

    assert len(failed_before(now, earlier, 3, refuse)) == 2
