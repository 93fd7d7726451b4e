"""Ensembles against dense algebra; each file of the folder follows the same rules."""

import subprocess
import sys

import pytest
import torch
import yaml
from errors import user_error
from hypothesis import given
from hypothesis import strategies as st

from hpc_llm.ensembles import ensemble_names, load_ensemble
from hpc_llm.ensembles._algebra import Factors, weighted_sum
from hpc_llm.rundir import conf_dir


def adapter(seed, rank, scale, layers=("q", "up"), width=6, dtype=torch.float32):
    """Return random factors; layer q is (width, width), up is (10, width)."""
    draw = torch.Generator().manual_seed(seed)
    outputs = {"q": width, "up": 10, "v": 3}
    return {
        name: Factors(
            torch.randn(rank, width, generator=draw).to(dtype),
            torch.randn(outputs[name], rank, generator=draw).to(dtype),
            scale,
        )
        for name in layers
    }


def dense(factors):
    return factors.scale * factors.b.double() @ factors.a.double()


def settings_of(name):
    values = yaml.safe_load((conf_dir() / "compose" / f"{name}.yaml").read_text())
    return load_ensemble(name).Settings(**values)


MIXED = {
    "ru": adapter(1, 2, 1.5),
    "law": adapter(2, 4, -0.5, ("q", "v")),
    "sum": adapter(3, 1, 8.0),
}


def test_uniform_is_the_mean_of_products_and_not_of_factors():
    found = load_ensemble("uniform").combine(MIXED, settings_of("uniform"), None)
    assert found.weights == dict.fromkeys(MIXED, 1 / 3)
    assert set(found.layers) == {"q", "up", "v"}
    for layer, factors in found.layers.items():
        parts = [layers[layer] for layers in MIXED.values() if layer in layers]
        expected = sum(dense(part) for part in parts) / 3
        torch.testing.assert_close(dense(factors), expected, atol=1e-5, rtol=1e-5)
        assert len(factors.a) == sum(len(part.a) for part in parts)
        assert factors.scale == 1
    one, two = adapter(1, 2, 1.0), adapter(2, 2, 1.0)
    mean = load_ensemble("uniform").combine({"a": one, "b": two}, settings_of("uniform"), None)
    factors = [(one["q"].b + two["q"].b) / 2, (one["q"].a + two["q"].a) / 2]
    assert (factors[0] @ factors[1] - dense(mean.layers["q"])).norm() > 0.3


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_a_weighted_sum_equals_the_dense_sum(weights):
    by_name = dict(zip(MIXED, weights, strict=True))
    for layer, factors in weighted_sum(MIXED, by_name).items():
        parts = [by_name[n] * dense(f[layer]) for n, f in MIXED.items() if layer in f]
        torch.testing.assert_close(dense(factors), sum(parts), atol=1e-4, rtol=1e-5)


def test_factors_balance_and_bf16_is_summed_in_fp32():
    one = adapter(1, 2, 64.0, dtype=torch.bfloat16)
    found = weighted_sum({"one": one}, {"one": -0.25})["q"]
    assert found.a.dtype == found.b.dtype == torch.float32
    torch.testing.assert_close(found.a, -4 * one["q"].a.float())
    torch.testing.assert_close(found.b, 4 * one["q"].b.float())


def test_an_adapter_minus_itself_is_nothing():
    found = weighted_sum({"a": MIXED["ru"], "b": MIXED["ru"]}, {"a": 1.0, "b": -1.0})
    assert all(dense(factors).abs().max() < 1e-5 for factors in found.values())


ADAPTERS = [name for name in ensemble_names() if hasattr(load_ensemble(name), "combine")]


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_ensemble_refuses_what_does_not_fit(name):
    ensemble = load_ensemble(name)
    with user_error("compose.adapters", "FOLDER"):
        ensemble.combine({}, settings_of(name), None)
    other = {"a": adapter(1, 2, 1.0), "b": adapter(1, 2, 1.0, width=8)}
    with user_error("compose.adapters", "q", "a 6x6", "b 8x8"):
        ensemble.combine(other, settings_of(name), None)


@pytest.mark.parametrize("name", ADAPTERS)
def test_one_adapter_and_copies_of_it_are_itself(name):
    for copies in ({"a": MIXED["ru"]}, {"a": MIXED["ru"], "b": MIXED["ru"]}):
        found = load_ensemble(name).combine(copies, settings_of(name), lambda combined: 1.0)
        for layer, factors in MIXED["ru"].items():
            torch.testing.assert_close(
                dense(found.layers[layer]), dense(factors), atol=1e-5, rtol=1e-5
            )


def test_the_names_are_listed_without_torch_and_unknown_ones_refused():
    code = (
        "import sys; from hpc_llm.ensembles import ensemble_names; "
        "assert 'uniform' in ensemble_names(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with user_error("ensemble", *ensemble_names(), value="unifrom"):
        load_ensemble("unifrom")


def test_one_file_of_a_plugin_folder_adds_one(tmp_path, monkeypatch):
    (tmp_path / "ensembles").mkdir()
    (tmp_path / "ensembles" / "first.py").write_text(
        "from hpc_llm.ensembles import Combined\n\nSettings = dict\n\n"
        "def combine(adapters, settings, loss):\n"
        "    name = next(iter(adapters))\n"
        "    return Combined(layers=adapters[name], weights={name: 1.0})\n"
    )
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path))
    assert "first" in ensemble_names()
    found = load_ensemble("first").combine(MIXED, {}, None)
    assert found.layers is MIXED["ru"]
