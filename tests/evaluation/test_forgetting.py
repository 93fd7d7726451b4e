"""What was forgotten, by hand and against the error of a mean."""

import math

import numpy as np
import pytest
from errors import user_error

from hpc_llm.evaluation import delta_bpb, relative_drop
from hpc_llm.evaluation.bits_per_byte import Bpb


def bpb(values, counts):
    nll = np.array(values) * math.log(2) * counts
    return Bpb(value=0, low=0, high=0, bytes=int(counts.sum()), nll=nll, byte_counts=counts)


def test_relative_drop_by_hand():
    assert relative_drop([0.5, 0.8], [0.4, 0.8]) == pytest.approx(0.1)
    steps = [[0.4, 0.8], [0.5, 0.4]]  # drops 0.2, 0, 0 and 0.5
    assert relative_drop([0.5, 0.8], steps) == pytest.approx(0.175)
    assert relative_drop([0.5], [0.6]) == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("before", "after"), [([0.5], [0.5, 0.4]), ([0.0], [0.1]), (0.5, 0.4), ([math.nan], [0.1])]
)
def test_scores_that_have_no_drop_are_refused(before, after):
    with user_error("forgetting", "before"):
        relative_drop(before, after)


def test_delta_bpb_is_paired():
    generator = np.random.default_rng(0)
    counts = np.full(200, 50)
    levels = generator.normal(1.5, 0.5, 200)
    rise = generator.normal(0.1, 0.05, 200)
    delta = delta_bpb(bpb(levels, counts), bpb(levels + rise, counts), seed=0)
    half = 1.96 * rise.std() / math.sqrt(200)
    assert delta.value == pytest.approx(rise.mean())
    assert delta.low == pytest.approx(rise.mean() - half, abs=0.2 * half)
    assert delta.high == pytest.approx(rise.mean() + half, abs=0.2 * half)


def test_other_documents_are_refused():
    with user_error("forgetting", "1 "):
        delta_bpb(bpb([1.0], np.array([5])), bpb([1.0], np.array([6])), seed=0)
