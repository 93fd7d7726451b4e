"""Means over seeds: against closed forms and direct sums."""

import math

import numpy as np
import pytest
from errors import user_error

from hpc_llm.evaluation.bootstrap import DocumentLosses, bits_per_byte
from hpc_llm.evaluation.seeds import mean_bpb, mean_difference, mean_measure

COUNTS = np.array([40, 90, 15, 0, 120, 66, 31, 58])


def runs(seeds, spread=0.0, start=0):
    """Return losses of about 1.5 bits per byte; seeds differ by a factor of deviation `spread`."""
    random = np.random.default_rng(start)
    nats = COUNTS * random.uniform(0.8, 1.3, len(COUNTS))
    factors = 1 + spread * random.standard_normal(seeds)
    return [DocumentLosses(nll=nats * factor, byte_counts=COUNTS) for factor in factors]


def width(interval):
    return interval.high - interval.low


def test_the_mean_is_that_of_the_bits_per_byte_of_the_runs():
    own = runs(3, spread=0.1)
    found = mean_bpb(own)
    each = [sum(one.nll) / math.log(2) / sum(COUNTS) for one in own]
    assert found.value == pytest.approx(sum(each) / 3, rel=1e-12)
    assert found.low < found.value < found.high


def test_equal_runs_have_the_interval_of_one_and_unequal_ones_a_wider():
    one, same, unequal = mean_bpb(runs(1)), mean_bpb(runs(4)), mean_bpb(runs(4, spread=0.2))
    assert same.value == pytest.approx(one.value, rel=1e-12)
    assert (same.low, same.high) == pytest.approx((one.low, one.high), rel=1e-12)
    assert width(unequal) > 1.3 * width(one)


def test_without_spread_of_documents_the_interval_is_that_of_the_mean_over_seeds():
    counts = np.full(50, 100)
    factors = 1 + 0.1 * np.random.default_rng(1).standard_normal(30)
    own = [DocumentLosses(nll=counts * f, byte_counts=counts) for f in factors]
    expected = 2 * 1.96 * factors.std() / math.sqrt(30) / math.log(2)
    assert width(mean_bpb(own)) == pytest.approx(expected, rel=0.15)


def test_a_difference_is_paired_by_seed_and_document():
    own = runs(3, spread=0.3)
    shifted = [DocumentLosses(nll=one.nll - 0.1 * COUNTS, byte_counts=COUNTS) for one in own]
    found = mean_difference(shifted, own)
    assert found is not None
    assert found.value == pytest.approx(-0.1 / math.log(2))
    assert width(found) == pytest.approx(0, abs=1e-12)  # what runs have in common cancels
    assert mean_difference([], []) is None
    swapped = mean_difference(own, shifted)
    assert swapped is not None
    assert swapped.value == pytest.approx(-found.value)


def test_other_documents_are_refused():
    other = DocumentLosses(nll=np.ones(3), byte_counts=np.array([1, 2, 3]))
    with user_error("held-out documents", len(COUNTS), 3):
        mean_bpb([runs(1)[0], other])


def test_a_measure_without_values_per_item_adds_both_variances():
    def one(value, half):
        return {"value": value, "low": value - half, "high": value + half}

    found = mean_measure([one(0.5, 0.1), one(0.7, 0.1)])
    seeds = np.var([0.5, 0.7], ddof=1) / 2
    half = math.sqrt(1.96**2 * seeds + 0.1**2)
    assert (found.value, found.high - found.value) == pytest.approx((0.6, half))
    single = mean_measure([one(0.5, 0.1)])
    assert (single.low, single.high) == pytest.approx((0.4, 0.6))
    unknown = mean_measure([{"value": 0.5, "low": None, "high": None}])
    assert math.isnan(unknown.low)
    assert mean_measure([]) is None


def test_bits_per_byte_of_one_run_is_the_same_as_without_seeds():
    own = runs(1)[0]
    assert mean_bpb([own]).value == bits_per_byte(own.nll, own.byte_counts)
