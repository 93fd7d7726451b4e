"""`plan` from the command line's overrides to its text, and its arithmetic."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hpc_llm.accounting import (
    Architecture,
    Method,
    Plan,
    TrainingSetup,
    device,
    make_plan,
    pf_days,
    render_plan,
)
from hpc_llm.accounting.fitting import what_fits
from hpc_llm.accounting.hardware import read_catalogue
from hpc_llm.config import compose, typed
from hpc_llm.errors import UserError
from hpc_llm.rundir import conf_dir
from hpc_llm.settings import HardwareSettings, ModelSettings

SOLAR = [
    "model=solar-10.7b",
    "cluster=a100_4x8",
    "plan.tokens=20_000_000_000",
    "train.sequence_length=4096",
    "train.batch_tokens=1_048_576",
    "train.precision=bf16",
    "tokenizer.vocab_size=32000",
]


@cache
def plan(*overrides: str) -> Plan:
    return make_plan(typed(compose(list(overrides))))


def test_solar_by_hand() -> None:
    result = plan(*SOLAR)
    assert result.parameters.total == 10_731_524_096
    assert result.devices == 32
    assert result.peak_tflops == 312
    assert [row.stage for row in result.rows] == ["embeddings", "lora"]
    embeddings = result.rows[0]
    assert embeddings.trainable == 262_144_000
    assert embeddings.flops_6n == 6 * 10_731_524_096 * 20_000_000_000
    assert pf_days(embeddings.flops_6n) == pytest.approx(14.90, abs=0.005)
    hours = embeddings.projection.flops / (32 * 312e12 * 0.64 * 0.8) / 3600
    assert embeddings.projection.low.hours == pytest.approx(hours)


def test_the_sum_is_the_sum() -> None:
    result = plan(*SOLAR)
    for key in ("tokens", "flops", "flops_6n"):
        assert getattr(result.total, key) == sum(getattr(row, key) for row in result.rows)
    for end in ("low", "mid", "high"):
        for key in ("hours", "device_hours", "money", "energy_kwh"):
            parts = [getattr(getattr(row.projection, end), key) for row in result.rows]
            assert getattr(getattr(result.total.projection, end), key) == pytest.approx(sum(parts))


def test_pretraining_has_the_vocabulary_of_the_base_model() -> None:
    result = plan("experiment=example", "tokenizer.vocab_size=2048")
    assert [row.stage for row in result.rows] == ["pretrain", "embeddings", "lora"]
    small, large = result.rows[0].parameters, result.rows[1].parameters
    assert large is not None
    assert small is not None
    assert large - small == (2048 - 1024) * 128
    steps = typed(compose(["experiment=example"])).train.pretrain.steps
    assert result.rows[0].tokens == steps * 4096


def test_a_local_folder_is_read_and_a_hub_id_without_sizes_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "llama", "intermediate_size": 96, "vocab_size": 512, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert plan(f"model.path={tmp_path}").vocab_size_old == 512
    with pytest.raises(UserError, match=r"model.path=some/model.*model=NAME"):
        plan("model.path=some/model")
    with pytest.raises(UserError, match=r"model\.path=null"):
        plan()


def test_table_json_and_csv_tell_the_same() -> None:
    result = plan(*SOLAR)
    table = render_plan(result)
    assert "10,731,524,096 parameters" in table
    assert "2026-05" in table
    assert "exact" in table
    assert f"{result.rows[0].projection.low.hours:.1f} / " in table
    data = json.loads(render_plan(result, "json"))
    assert data["rows"][1]["flops"] == result.rows[1].flops
    rows = list(csv.DictReader(io.StringIO(render_plan(result, "csv"))))
    assert int(rows[-1]["flops"]) == result.total.flops
    assert float(rows[0]["money_high"]) == result.rows[0].projection.high.money
    with pytest.raises(UserError, match="table"):
        render_plan(result, "xml")


def test_what_does_not_fit_is_told_what_would() -> None:
    result = plan(*SOLAR)
    assert [row.fits for row in result.rows] == [False, False]
    assert "DOES NOT FIT" in render_plan(result)
    for row in result.rows:
        assert row.remedy
        mended = plan(*SOLAR, *row.remedy.split())
        again = next(other for other in mended.rows if other.stage == row.stage)
        assert again.fits
        assert again.remedy is None
        assert again.memory is not None
        assert again.memory.total < 80 * 2**30
    small = ["cluster.nodes=1", "train.micro_batch_tokens=4096", "train.recompute=true"]
    large = plan(*SOLAR, "model=llama-3.1-405b", *small)
    assert large.rows[0].remedy
    assert "cluster.nodes" in large.rows[0].remedy
    assert plan(*SOLAR, "model=llama-3.1-405b", *small, *large.rows[0].remedy.split()).rows[0].fits
    hopeless = [o for o in SOLAR if not o.startswith(("model", "cluster"))]
    hopeless += ["model=llama-3.1-405b", "cluster=local", "hardware=rtx_3090"]
    hopeless += ["train.batch_tokens=4096"]
    assert plan(*hopeless).rows[0].remedy == ""
    assert "nothing fits" in render_plan(plan(*hopeless))


def test_the_cheapest_way_that_fits_comes_first() -> None:
    setup = TrainingSetup(
        precision="bf16", sequence_length=4096, data_parallel=32, zero_stage=1, micro_batch_size=2
    )
    config = typed(compose(SOLAR[:1])).model.architecture
    assert config is not None
    arch = Architecture.from_config(config)
    found = what_fits(arch, Method.full(), setup, device("a100_sxm_80gb"), micro_steps=4)
    assert len(found) > 5
    assert found[0].share_of_flops == 1.0
    assert all(fitting.memory_bytes <= 80 * 2**30 for fitting in found)
    assert {fitting.recompute for fitting in found} == {False, True}
    assert [f.share_of_flops for f in found] == sorted(f.share_of_flops for f in found)


def test_what_is_not_known_is_printed_as_not_known() -> None:
    overrides = [o for o in SOLAR if not o.startswith("cluster")]
    table = render_plan(plan(*overrides, "cluster=lumi_g"))
    assert "n/a" in table
    assert "hardware.utilisation_low" in table
    assert "hardware.price_low" in table
    empty = list(
        csv.DictReader(io.StringIO(render_plan(plan(*overrides, "cluster=lumi_g"), "csv")))
    )
    assert empty[0]["money_low"] == ""


def test_every_cluster_brings_its_device_and_the_command_line_wins() -> None:
    assert plan(*SOLAR).device == "A100-SXM-80GB"
    assert plan(*SOLAR, "hardware=h100_sxm").device == "H100-SXM-80GB"


def entries(group: str) -> list[Path]:
    return sorted((conf_dir() / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("group", "kind"), [("hardware", HardwareSettings), ("model", ModelSettings)]
)
def test_every_file_has_the_types_of_its_settings(group: str, kind: type) -> None:
    for path in entries(group):
        checked = OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.load(path))
        assert isinstance(OmegaConf.to_object(checked), kind)


@pytest.mark.parametrize("path", entries("cluster"), ids=lambda path: path.stem)
def test_every_cluster_composes_with_its_device(path: Path) -> None:
    cfg = typed(compose([f"cluster={path.stem}"]))
    assert (cfg.hardware.kind == "cpu") == (path.stem == "local")


def test_every_model_of_the_catalogue_is_planned() -> None:
    cfg = typed(compose(SOLAR))
    for name, entry in read_catalogue("model").items():
        if name != "weights":  # the user's own folder
            result = make_plan(replace(cfg, model=ModelSettings(**entry)))
            assert result.total.flops > 0


def test_rows_that_cannot_be_divided_among_the_devices_are_told() -> None:
    assert "cannot be divided among 32" in render_plan(plan(*SOLAR, "train.batch_tokens=81920"))
    assert "cannot be divided" not in render_plan(plan(*SOLAR))


def test_bad_requests_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="bf16"):
        plan(*SOLAR[:1], "cluster=volta1", "train.precision=bf16")
    with pytest.raises(UserError, match="utilisation_high"):
        plan(*SOLAR, "hardware.utilisation_high=1.5")
    with pytest.raises(UserError, match="gate"):
        plan(*SOLAR, "train.lora.targets=[gate]")


def test_accounting_loads_without_heavy_libraries() -> None:
    heavy = ("torch", "numpy", "transformers", "hydra", "rich")
    code = f"import sys, hpc_llm.accounting; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
