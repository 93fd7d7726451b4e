"""The catalogues against hand-written references: devices, clusters, models, sources, dates.

The peaks are dense. What data sheets print larger holds only with 2:4 sparsity, which training does
not have, so the sparse figure stands beside each dense one and must not be found.
"""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from test_architecture import count, real_model

from hpc_llm import config
from hpc_llm.accounting import Architecture, device, parameter_count
from hpc_llm.accounting.hardware import cluster_catalogue, device_catalogue, read_catalogue
from hpc_llm.app.main import main
from hpc_llm.errors import EXIT_USER
from hpc_llm.rundir import conf_dir
from hpc_llm.settings import HardwareSettings, ModelSettings

# Dense fp16, the sparse figure that is printed for it, GB, GB/s, W, by data sheets.
DEVICES = {
    "v100_sxm2_16gb": (125, None, 16, 900, 300),
    "v100_sxm2_32gb": (125, None, 32, 900, 300),
    "a100_sxm_40gb": (312, 624, 40, 1555, 400),
    "a100_sxm_80gb": (312, 624, 80, 2039, 400),
    "a100_pcie_40gb": (312, 624, 40, 1555, 250),
    "a100_pcie_80gb": (312, 624, 80, 1935, 300),
    "h100_sxm": (989.4, 1979, 80, 3350, 700),
    "h100_pcie": (756, 1513, 80, 2000, 350),
    "h100_nvl": (835, 1671, 94, 3900, 400),
    "h200_sxm": (989, 1979, 141, 4800, 700),
    "b200": (2250, 4500, 180, 8000, 1000),
    "gb200": (2500, 5000, 186, 8000, 1200),
    "mi250x_gcd": (383 / 2, None, 128 / 2, 1638, 500 / 2),
    "mi300x": (1307, 2615, 192, 5300, 750),
    "rtx_3090": (71, 142, 24, 936, 350),
    "rtx_4090": (165.2, 330.4, 24, 1008, 450),
    "l40s": (362, 733, 48, 864, 350),
}
SPARSE = {sparse for _, sparse, *_ in DEVICES.values() if sparse} | {1978.9, 3958, 2614.9, 296}
WITHOUT_BF16 = {"v100_sxm2_16gb", "v100_sxm2_32gb", "p100_pcie_16gb", "k40"}

# Rent of one device for an hour, USD, public lists of May 2026.
RENT = {
    "a100_sxm_80gb": (0.80, 3.00),
    "h100_sxm": (1.99, 5.00),
    "h200_sxm": (2.50, 7.00),
    "b200": (5.50, 6.03),
    "l40s": (1.55, 1.55),
    "v100_sxm2_32gb": (0.79, 1.50),
}

# File: its device, devices in a node, g of CO2 for one kWh in the country (2023).
SYSTEMS = {
    "a100_4x8": ("a100_sxm_80gb", 8, None),
    "h100_4x8": ("h100_sxm", 8, None),
    "lomonosov2": ("k40", 1, 441),
    "lomonosov2_pascal": ("p100_pcie_16gb", 2, 441),
    "volta1": ("v100_sxm2_32gb", 8, 441),
    "msu270": ("unknown", 1, 441),
    "christofari": ("v100_sxm2_32gb", 16, 441),
    "christofari_neo": ("a100_sxm_80gb", 8, 441),
    "leonardo": ("a100_sxm_64gb", 4, 331),
    "lumi_g": ("mi250x_gcd", 8, 79),
    "juwels_booster": ("a100_sxm_40gb", 4, 381),
    "marenostrum5": ("h100_sxm_64gb", 4, 174),
}
FIGURES = ("max_hours", "cores_per_node", "memory_gib_per_node")
# The whole machines; a job has the nodes that it asks for.
SIZES = {
    "christofari": "75 nodes of 16 V100",
    "christofari_neo": "99 nodes of 8 A100",
    "leonardo": "3456 nodes of 4 A100",
    "lumi_g": "2978 nodes of 4 MI250X",
    "juwels_booster": "936 nodes of 4 A100",
    "marenostrum5": "1120 nodes of 4 H100",
    "volta1": "inferred",
}


@pytest.mark.parametrize("name", DEVICES)
def test_devices_have_the_numbers_of_their_data_sheets(name: str) -> None:
    entry, (dense, sparse, *memory_and_power) = device(name), DEVICES[name]
    assert entry.peak_tflops["fp16"] == dense
    assert entry.peak_tflops.get("bf16", dense) == dense
    assert [entry.memory_gib, entry.memory_gb_per_second, entry.watts] == memory_and_power
    if sparse:
        assert dense == pytest.approx(sparse / 2, rel=0.02)


def test_no_peak_is_sparse_and_bf16_is_where_it_exists() -> None:
    devices = device_catalogue()
    for name, entry in devices.items():
        assert not SPARSE & set(entry.peak_tflops.values()), name
    with_16_bit = {name for name, entry in devices.items() if entry.kind == "gpu"} - {"unknown"}
    assert {name for name in with_16_bit if "bf16" not in devices[name].peak_tflops} == WITHOUT_BF16


def test_rents_are_those_of_the_public_lists() -> None:
    for name, rent in RENT.items():
        entry = device(name)
        assert (entry.price_low, entry.price_high) == rent
        assert (entry.currency, entry.price_date) == ("USD", "2026-05")


def dated(source: str, subject: str) -> bool:
    """Whether a part of the source is on the subject and names its year."""
    parts = [part for part in source.split(";") if subject in part]
    return any(re.search(r"\b20[12]\d\b", part) for part in parts)


def test_every_number_of_a_device_has_a_dated_source() -> None:
    for name, entry in device_catalogue().items():
        assert dated(entry.source, ""), name
        assert re.fullmatch(r"20[12]\d-[01]\d", entry.price_date), name
        for subject, figure in {
            "peak": entry.peak_tflops,
            "memory": entry.memory_gib,
            "power": entry.watts,
            "utilisation": entry.utilisation_low,
            "rent": entry.price_low,
        }.items():
            assert not figure or dated(entry.source, subject), (name, subject)


def test_every_number_of_a_cluster_has_a_dated_source() -> None:
    clusters = cluster_catalogue()
    assert clusters.pop("local").source  # what it is by definition has no date
    assert set(clusters) == set(SYSTEMS)
    for name, entry in clusters.items():
        assert dated(entry.source, "goodput"), name
        assert entry.carbon_g_per_kwh is None or dated(entry.source, "carbon"), name
        assert entry.link_gb_per_second is None or dated(entry.source, "Gbit/s"), name
        assert dated(entry.source, SIZES.get(name, "")), name


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_stand_on_their_devices(name: str) -> None:
    composed = config.typed(config.compose([f"cluster={name}"], example=True))
    hardware, per_node, carbon = SYSTEMS[name]
    assert composed.hardware == device(hardware)
    assert composed.cluster.devices_per_node == per_node
    assert composed.cluster.carbon_g_per_kwh == carbon


def test_an_announced_peak_of_sparse_fp8_is_not_used(capsys) -> None:
    words = ["plan", "model=solar-10.7b", "cluster=msu270"]
    assert main(words) == EXIT_USER
    said = capsys.readouterr()
    assert not said.out
    assert said.err.count("\n") == 1
    assert "hardware=unknown: " in said.err
    assert "hardware=NAME" in said.err
    layout = ["cluster.nodes=4", "cluster.devices_per_node=8"]
    assert main([*words, "hardware=h100_sxm", *layout, "train.precision=bf16"]) == 0
    assert "32 x H100-SXM-80GB (MSU-270, 4 x 8), 989.4 TFLOP/s" in capsys.readouterr().out


# Parameters as counted on the published weights; encoders with their pooler, without a head.
PUBLISHED = {
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "roberta-base": 124_645_632,
    "roberta-large": 355_359_744,
    "opt-1.3b": 1_315_758_080,
    "tinyllama-1.1b": 1_100_048_384,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "solar-10.7b": 10_731_524_096,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-72b": 72_706_203_648,
    "gemma-2-9b": 9_241_705_984,
}
# Millions of parameters in the table of PF-days, Brown et al. 2020, table D.1.
PF_DAY_TABLE = {
    "bert-base": 109,
    "roberta-base": 125,
    "roberta-large": 355,
    "gpt-3-small": 125,
    "gpt-3-medium": 356,
    "gpt-3-large": 760,
    "gpt-3-xl": 1320,
    "gpt-3-2.7b": 2650,
    "gpt-3-6.7b": 6660,
    "gpt-3-13b": 12850,
    "gpt-3-175b": 174600,
}
MODELS = sorted({*PUBLISHED, *PF_DAY_TABLE})


def architecture(name: str) -> dict:
    """The sizes of a model of the catalogue, as its file gives them."""
    sizes = ModelSettings(**read_catalogue("model")[name]).architecture
    assert sizes is not None
    return sizes


@pytest.mark.parametrize("name", MODELS)
def test_models_are_counted_as_transformers_builds_them(name: str) -> None:
    counted = parameter_count(Architecture.from_config(architecture(name))).total
    assert counted == count(real_model(architecture(name)).parameters())
    assert counted == PUBLISHED.get(name, counted)
    assert counted / 1e6 == pytest.approx(PF_DAY_TABLE.get(name, counted / 1e6), rel=0.005)


def test_the_table_of_pf_days_gives_bert_large_the_size_of_roberta_large() -> None:
    bert, roberta = (
        parameter_count(Architecture.from_config(architecture(name))).total / 1e6
        for name in ("bert-large", "roberta-large")
    )
    assert round(roberta) == 355  # what the table has for both
    assert round(bert) == 335


def test_every_model_of_the_catalogue_with_sizes_is_tested_here() -> None:
    with_sizes = {name for name, entry in read_catalogue("model").items() if entry["architecture"]}
    assert with_sizes - {"example"} == set(MODELS)


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
    cfg = config.typed(config.compose([f"cluster={path.stem}"]))
    assert (cfg.hardware.kind == "cpu") == (path.stem == "local")


def test_every_cluster_documents_its_slurm_limits() -> None:
    known = {"partition", "max_hours", "cores_per_node", "memory_gib_per_node", "address_suffix"}
    for name in SYSTEMS:
        entry = read_catalogue("cluster")[name]
        assert known | {"environment"} <= set(entry), name
        if any(entry[key] is None for key in known - {"address_suffix"}):
            assert re.search(r"not published|your site's|nothing else|1 or 2 TB", entry["source"])
    assert cluster_catalogue()["juwels_booster"].address_suffix == "i"


def test_the_slurm_page_has_the_numbers_of_the_clusters() -> None:
    page = (Path(__file__).parents[2] / "slurm" / "README.md").read_text(encoding="utf-8")
    table = page.split("## Sites")[1].split("## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` (\|.*\|) .*\|$", table, re.MULTILINE))
    for name, entry in read_catalogue("cluster").items():
        shown = ["-" if entry[key] is None else f"{entry[key]:g}" for key in FIGURES]
        partition = f"`{entry['partition']}`" if entry["partition"] else "-"
        words = [partition, shown[0], f"{shown[1]}, {shown[2]}"]
        assert rows.pop(name).endswith(f"| {entry['devices_per_node']} | {' | '.join(words)} |")
    assert not rows
