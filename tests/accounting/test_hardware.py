"""The catalogues: every file is read, every figure is dense, and devices are found by name."""

import pytest

from hpc_llm.accounting import Architecture, device, find_device, parameter_count
from hpc_llm.accounting.hardware import (
    Machine,
    cluster_catalogue,
    device_catalogue,
    read_catalogue,
)
from hpc_llm.errors import UserError
from hpc_llm.settings import ModelSettings

REPORTED = {
    "NVIDIA A100-SXM4-80GB": "A100-SXM-80GB",
    "NVIDIA A100-SXM4-40GB": "A100-SXM-40GB",
    "NVIDIA A100-SXM-64GB": "A100-SXM-64GB",
    "NVIDIA A100 80GB PCIe": "A100-PCIe-80GB",
    "NVIDIA A100-PCIE-40GB": "A100-PCIe-40GB",
    "NVIDIA H100 80GB HBM3": "H100-SXM-80GB",
    "NVIDIA H100 PCIe": "H100-PCIe-80GB",
    "NVIDIA H100 NVL": "H100-NVL-94GB",
    "NVIDIA H200": "H200-SXM-141GB",
    "NVIDIA H200 NVL": "H200-NVL-141GB",
    "NVIDIA H20": "H20-96GB",
    "NVIDIA GH200 480GB": "GH200-96GB",
    "NVIDIA B200": "B200-180GB",
    "NVIDIA GB200": "GB200, one GPU",
    "Tesla V100-SXM2-16GB": "V100-SXM2-16GB",
    "Tesla V100-SXM2-32GB": "V100-SXM2-32GB",
    "AMD Instinct MI250X": "MI250X, one GCD",
    "AMD Instinct MI300X": "MI300X-192GB",
    "NVIDIA GeForce RTX 3090": "RTX 3090",
    "NVIDIA GeForce RTX 4090": "RTX 4090",
    "NVIDIA L40S": "L40S-48GB",
    "Tesla P100-PCIE-16GB": "P100-PCIe-16GB",
}


@pytest.mark.parametrize("reported", REPORTED)
def test_a_device_is_found_by_the_name_the_driver_reports(reported: str) -> None:
    found = find_device(reported)
    assert found is not None
    assert found.name == REPORTED[reported]


def test_an_unknown_device_is_none_by_its_name_and_an_error_by_its_key() -> None:
    assert find_device("NVIDIA GeForce GTX 1080 Ti") is None
    with pytest.raises(UserError, match=r"hardware=a100: not known.*a100_sxm_80gb"):
        device("a100")


def test_figures_are_dense_and_carry_a_source() -> None:
    peaks = {name: entry.peak_tflops for name, entry in device_catalogue().items()}
    assert peaks["a100_sxm_80gb"]["bf16"] == 312
    assert peaks["h100_sxm"]["bf16"] == 989.4
    assert "bf16" not in peaks["v100_sxm2_32gb"]
    for name, entry in device_catalogue().items():
        assert len(entry.source) > 10, name
        assert 0 not in peaks[name].values()
    assert all(len(entry.source) > 10 for entry in cluster_catalogue().values())


def test_clusters_name_devices_that_exist_and_have_the_known_sizes() -> None:
    clusters = cluster_catalogue()
    assert clusters["a100_4x8"].devices == clusters["volta1"].devices == 32
    assert clusters["local"].devices == 1


def test_a_precision_that_the_device_lacks_is_refused() -> None:
    volta = Machine(
        hardware=device("v100_sxm2_32gb"), cluster=cluster_catalogue()["volta1"], precision="bf16"
    )
    with pytest.raises(UserError, match=r"train.precision=bf16: V100.*fp32, fp16"):
        _ = volta.flops_per_second


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"utilisation_high": 1.2}, "utilisation_high=1.2"),
        ({"utilisation_low": None}, "utilisation_low=None"),
        ({"price_low": 9.0}, "price_low=9.0"),
        ({"kind": "tpu"}, "gpu"),
        ({"memory_gib": 0}, "memory_gib=0"),
    ],
)
def test_impossible_devices_are_refused(change: dict, said: str) -> None:
    entry = read_catalogue("hardware")["a100_sxm_80gb"]
    with pytest.raises(UserError, match=said):
        type(device("a100_sxm_80gb"))(**(entry | change))


PUBLISHED = {
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


@pytest.mark.parametrize("name", PUBLISHED)
def test_models_of_the_catalogue_have_their_published_size(name: str) -> None:
    settings = ModelSettings(**read_catalogue("model")[name])
    assert settings.architecture is not None
    arch = Architecture.from_config(settings.architecture)
    assert parameter_count(arch).total == PUBLISHED[name]
