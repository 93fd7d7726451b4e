"""A rank that all others wait for is named with its host, from the times of forward passes."""

import re
import socket
import time
from dataclasses import replace

import pytest
import torch
from errors import user_error
from start_ranks import run

from hpc_llm.config import compose, typed
from hpc_llm.training.stragglers import ForwardClock, slow_ranks


def test_slow_is_measured_by_the_median_rank():
    assert slow_ranks([0.1, 0.11, 0.1, 0.151], 1.5) == [3]
    assert slow_ranks([0.1, 0.2], 1.5) == [1]  # of two, by the faster one
    assert slow_ranks([0.3, 0.1, 0.3, 0.1, 0.1], 1.5) == [0, 2]
    assert slow_ranks([0.1, 0.149], 1.5) == []
    assert slow_ranks([0.001, 0.009], 1.5) == []  # a moment of a busy host


def test_the_clock_takes_the_mean_since_it_was_last_asked():
    clock = ForwardClock(torch.device("cpu"))
    assert clock.take() == 0
    for seconds in (0.02, 0.06):
        with clock.forward():
            time.sleep(seconds)
    assert 0.04 <= clock.take() < 0.2
    with clock.forward():
        pass
    assert clock.take() < 0.02


@pytest.mark.parametrize(("stage", "factor"), [(0, 1.5), (2, 1.5), (2, None), (3, 1.5)])
def test_a_slow_rank_is_named_once(tmp_path, stage, factor):
    task = {
        "folder": str(tmp_path), "zero": stage, "method": "full", "fault": [0, "slow", 1000],
        "guards": {"slow_factor": factor},
    }  # fmt: skip
    (found,) = run([task], processes=2)
    if stage == 3:  # they gather weights in their forward passes, so one waits for the other there
        assert found["named"] == []
        assert found["slowest"] == [None] * 6
        return
    assert min(found["slowest"]) > 1.5
    if factor is None:
        assert found["named"] == []
        return
    ((step, names),) = found["named"]
    assert step == 3  # the third log line in a row
    host = re.escape(socket.gethostname())
    assert re.fullmatch(rf"rank 1 on {host} .*\b[0-9.]+ times .*", names[0])
    assert len(names) == 1


def test_one_rank_is_compared_with_nobody(tmp_path):
    task = {"folder": str(tmp_path), "zero": 0, "method": "full", "fault": [0, "slow", 1000]}
    (found,) = run([task])
    assert found["slowest"] == [None] * 6


def test_a_factor_that_names_everybody_is_refused():
    with user_error("guards.slow_factor", "1", value=1.0):
        replace(typed(compose([])).guards, slow_factor=1.0)
