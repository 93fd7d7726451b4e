"""The catalogue of devices in `conf/hardware/*.yaml`, and detection of this machine's device.

All peaks are dense (data sheets list twice as much, with 2:4 sparsity); every entry has its source,
and unknown values are null.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.rundir import conf_files
from hpc_llm.settings import ClusterSettings, HardwareSettings

__all__ = [
    "Machine",
    "cluster_catalogue",
    "device",
    "device_catalogue",
    "find_device",
    "read_catalogue",
]

OTHER_PRODUCT = r"(?! ?(?:ti|super|laptop|max|d|v|3e)\b)"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The devices of a run: their kind, number and precision."""

    hardware: HardwareSettings
    """One device."""
    cluster: ClusterSettings
    """Nodes and devices of a node."""
    precision: str
    """fp32 | bf16 | fp16."""

    @property
    def flops_per_second(self) -> float:
        """Dense peak of all devices; `UserError` for a precision that they lack."""
        return self.cluster.devices * self.hardware.peak_flops_per_second(self.precision)


@cache
def read_catalogue(group: str) -> dict[str, dict[str, Any]]:
    """Return the options of one group of `conf/` by name, read with PyYAML, not Hydra."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = {}
    for name, path in conf_files(group).items():
        entry = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
        entries[name] = {key: value for key, value in entry.items() if key != "defaults"}
    return entries


def device_catalogue() -> dict[str, HardwareSettings]:
    """Return all devices of `conf/hardware/`, by the names of their files."""
    return {name: HardwareSettings(**entry) for name, entry in read_catalogue("hardware").items()}


def cluster_catalogue() -> dict[str, ClusterSettings]:
    """Return all clusters of `conf/cluster/`, by the names of their files."""
    return {name: ClusterSettings(**entry) for name, entry in read_catalogue("cluster").items()}


def device(name: str) -> HardwareSettings:
    """Return the catalogue entry `name`; raises `UserError` listing the known ones."""
    catalogue = device_catalogue()
    if name not in catalogue:
        fix = f"choose one of {', '.join(catalogue)}"
        raise UserError("hardware", name, "unknown device", fix)
    return catalogue[name]


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text).lower()


def find_device(reported_name: str) -> HardwareSettings | None:
    """Return the device whose `match` is in the name that the driver reports, or None.

    The longest match wins: GH200 is not an H200, and an H200 is not an H20. A name with the suffix
    of another product (4090 Laptop, 3090 Ti) does not match.
    """
    reported = _plain(reported_name)
    found = [
        (len(part), entry)
        for entry in device_catalogue().values()
        for part in entry.match
        if re.search(re.escape(_plain(part)) + OTHER_PRODUCT, reported)
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None
