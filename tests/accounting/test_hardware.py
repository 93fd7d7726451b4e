"""Devices: found by the name that the driver reports; invalid ones are refused."""

import pytest
from errors import user_error

from hpc_llm.accounting import device, find_device
from hpc_llm.accounting.hardware import (
    Machine,
    cluster_catalogue,
    read_catalogue,
)

REPORTED = {
    "NVIDIA A100-SXM4-80GB": "A100-SXM-80GB",
    "NVIDIA A100-SXM4-40GB": "A100-SXM-40GB",
    "NVIDIA A100-SXM-64GB": "A100-SXM-64GB",
    "NVIDIA A100 80GB PCIe": "A100-PCIe-80GB",
    "NVIDIA A100-PCIE-40GB": "A100-PCIe-40GB",
    "NVIDIA H100 80GB HBM3": "H100-SXM-80GB",
    "NVIDIA H100 64GB": "H100-SXM-64GB",
    "NVIDIA H100 PCIe": "H100-PCIe-80GB",
    "NVIDIA H100 NVL": "H100-NVL-94GB",
    "NVIDIA H200": "H200-SXM-141GB",
    "NVIDIA H200 NVL": "H200-NVL-141GB",
    "NVIDIA H20": "H20-96GB",
    "NVIDIA GH200 480GB": "GH200-96GB",
    "NVIDIA GH200 120GB": "GH200-96GB",
    "NVIDIA B200": "B200-180GB",
    "NVIDIA GB200": "GB200, one GPU",
    "Tesla V100-SXM2-16GB": "V100-SXM2-16GB",
    "Tesla V100-SXM2-32GB": "V100-SXM2-32GB",
    "Tesla V100-SXM3-32GB": "V100-SXM2-32GB",
    "AMD Instinct MI250X": "MI250X, one GCD",
    "AMD Instinct MI300X": "MI300X-192GB",
    "NVIDIA GeForce RTX 3090": "RTX 3090",
    "NVIDIA GeForce RTX 4090": "RTX 4090",
    "NVIDIA L40S": "L40S-48GB",
    "Tesla P100-PCIE-16GB": "P100-PCIe-16GB",
    "Tesla K40m": "K40M-12GB",
}


@pytest.mark.parametrize("reported", REPORTED)
def test_a_device_is_found_by_the_name_the_driver_reports(reported: str) -> None:
    found = find_device(reported)
    assert found is not None
    assert found.name == REPORTED[reported]


OTHERS = ("GTX 1080 Ti", "RTX 4090 Laptop GPU", "RTX 4090 D", "RTX 3090 Ti")


def test_an_unknown_device_is_none_by_its_name_and_an_error_by_its_key() -> None:
    for other in OTHERS:
        assert find_device(f"NVIDIA GeForce {other}") is None
    assert find_device("NVIDIA H20-3e") is None  # 141 GB, not 96
    assert find_device("NVIDIA GH200 144G HBM3e") is None  # neither the 96 GB part nor an H200
    with user_error("hardware", "a100_sxm_80gb", value="a100"):
        device("a100")


def test_jobs_have_the_devices_of_their_nodes() -> None:
    clusters = cluster_catalogue()
    assert clusters["a100_4x8"].devices == clusters["volta1"].devices == 32
    assert clusters["local"].devices == 1


def test_a_precision_that_the_device_lacks_is_refused() -> None:
    volta = Machine(
        hardware=device("v100_sxm2_32gb"), cluster=cluster_catalogue()["volta1"], precision="bf16"
    )
    with user_error("train.precision", "fp32, fp16", value="bf16"):
        _ = volta.flops_per_second


@pytest.mark.parametrize(
    ("key", "value", "told", "mention"),
    [
        ("utilisation_high", 1.2, 1.2, "1"),
        ("utilisation_low", None, "null", "hardware.utilisation_high="),
        ("price_low", 9.0, 9.0, "hardware.price_high="),
        ("kind", "tpu", "tpu", "cpu, gpu"),
        ("memory_gib", 0, 0, "0"),
    ],
)
def test_invalid_devices_are_refused(key: str, value: object, told: object, mention: str) -> None:
    entry = read_catalogue("hardware")["a100_sxm_80gb"]
    with user_error(f"hardware.{key}", mention, value=told):
        type(device("a100_sxm_80gb"))(**(entry | {key: value}))
