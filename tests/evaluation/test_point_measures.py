"""Measures of a point: their values, the paired forgetting, and the losses kept for it."""

import math
import zipfile

import numpy as np
import pytest
from errors import user_error

from hpc_llm.evaluation import Measure
from hpc_llm.evaluation.bits_per_byte import Bpb
from hpc_llm.evaluation.measures import (
    Evaluated,
    bits_per_byte_measures,
    forgetting_measures,
    language_columns,
    language_view,
    load_losses,
    save_losses,
)

COUNTS = np.array([10, 20, 30])


def bpb(values, counts=COUNTS):
    nll = np.array(values) * math.log(2) * counts
    value = float((np.array(values) * counts).sum() / counts.sum())
    return Bpb(
        value=value,
        low=value - 1,
        high=value + 1,
        bytes=int(counts.sum()),
        nll=nll,
        byte_counts=counts,
    )


def evaluated(losses, base=None):
    return Evaluated(model=None, tokenizer=None, texts={}, losses=losses, base=base, seed=0)


def test_bits_per_byte_is_a_measure_of_each_language():
    found = bits_per_byte_measures(evaluated({"target": bpb([1.0, 2.0, 3.0])}))
    value = pytest.approx((10 + 40 + 90) / 60)
    assert found == {
        "bpb/target": Measure(
            value=value,
            low=value.expected - 1,
            high=value.expected + 1,
            n=3,
            unit="bits per byte",
            better="lower",
        )
    }


def test_forgetting_is_the_paired_rise_on_source_text(tmp_path):
    before = {"target": bpb([5.0, 5.0, 5.0]), "source": bpb([1.0, 2.0, 3.0])}
    save_losses(tmp_path / "evaluate/base.npz", before)
    after = {"target": bpb([1.0, 1.0, 1.0]), "source": bpb([1.5, 2.5, 3.5])}
    found = forgetting_measures(evaluated(after, load_losses(tmp_path / "evaluate/base.npz")))
    assert list(found) == ["forgetting/source"]
    forgotten = found["forgetting/source"]
    # every document rose by as much, so the paired interval has no width, whatever the levels
    assert (forgotten.value, forgotten.low, forgotten.high) == pytest.approx((0.5, 0.5, 0.5))
    assert (forgotten.n, forgotten.unit, forgotten.better) == (3, "bits per byte", "lower")


def test_the_base_model_and_runs_without_source_text_have_no_forgetting():
    both = {"target": bpb([1.0, 2.0, 3.0]), "source": bpb([1.0, 2.0, 3.0])}
    assert forgetting_measures(evaluated(both)) == {}
    target = {"target": both["target"]}
    assert forgetting_measures(evaluated(target, target)) == {}


def test_a_base_evaluated_on_other_documents_is_refused():
    other = {"source": bpb([1.0, 2.0], np.array([10, 20]))}
    with user_error("forgetting", 2, 3):
        forgetting_measures(evaluated({"source": bpb([1.0, 2.0, 3.0])}, other))


def test_a_single_document_has_no_interval():
    one = {"source": bpb([2.0], np.array([10]))}
    found = bits_per_byte_measures(evaluated(one)) | forgetting_measures(evaluated(one, one))
    assert [(m.n, m.low, m.high) for m in found.values()] == [(1, None, None)] * 2


def test_losses_come_back_exactly_and_are_plain_arrays(tmp_path):
    path = tmp_path / "base.npz"
    losses = {"target": bpb([1 / 3, 0.1, 7.0]), "source": bpb([1.0, 2.0, 3.0])}
    save_losses(path, losses)
    found = load_losses(path)
    assert list(found) == list(losses)
    for language, expected in losses.items():
        assert np.array_equal(found[language].nll, expected.nll)
        assert np.array_equal(found[language].byte_counts, expected.byte_counts)
    assert [file.name for file in tmp_path.iterdir()] == ["base.npz"]  # no temporary file is left
    with zipfile.ZipFile(path) as archive:
        names = sorted(archive.namelist())
    assert names == [
        f"{name}.{kind}.npy" for name in ("source", "target") for kind in ("bytes", "nll")
    ]


def test_pickled_losses_are_refused(tmp_path):
    path = tmp_path / "base.npz"
    np.savez(path, **{"source.nll": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(ValueError, match="pickle"):
        load_losses(path)


def test_a_measure_has_one_of_two_directions():
    with pytest.raises(ValueError, match="lower or higher"):
        Measure(value=1.0, n=1, unit="share", better="more")


def test_the_older_keys_are_views_of_the_same_values():
    losses = {"target": bpb([1.0, 2.0, 3.0])}
    view = language_view(losses)
    assert view["source"] is None
    assert list(view["target"]) == ["value", "low", "high", "bytes", "documents"]
    columns = language_columns({"base": view, "lora": view})
    assert columns["target_bpb"] == dict.fromkeys(("base", "lora"), losses["target"].value)
    assert columns["source_bpb"] == {"base": None, "lora": None}
