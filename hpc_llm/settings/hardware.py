"""Settings of devices (`conf/hardware/`) and of systems (`conf/cluster/`)."""

from dataclasses import dataclass, field

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_choice, require_positive

__all__ = ["PRECISIONS", "ClusterSettings", "HardwareSettings"]

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(kw_only=True)
class HardwareSettings:
    """One device as bought or rented. An unknown figure is null, never 0."""

    name: str
    """The product's name."""
    kind: str
    """gpu | cpu. A `cpu` device is one core."""
    match: list[str]
    """Parts of the name the driver reports, for finding the device at run time."""
    peak_tflops: dict[str, float]
    """Dense TFLOP/s by precision (fp32, fp16, bf16); never the sparse figure."""
    precision: str
    """What training takes there unless `train.precision` says otherwise: fp32 | bf16 | fp16."""
    memory_gib: float | None
    """Device memory, GiB."""
    memory_gb_per_second: float | None
    """Memory bandwidth, 10^9 bytes/s."""
    watts: float | None
    """Board power, W."""
    utilisation_low: float | None
    """Share of the peak that training reaches, lower end."""
    utilisation_high: float | None
    """The same, upper end."""
    price_low: float | None
    """Rent of one device for one hour, lower end of public lists."""
    price_high: float | None
    """The same, upper end."""
    currency: str
    """Currency of the prices (ISO 4217)."""
    price_date: str
    """Month of the price lists, YYYY-MM."""
    source: str
    """Where the figures come from."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_choice("hardware.kind", self.kind, ("gpu", "cpu"))
        require_choice("hardware.precision", self.precision, PRECISIONS)
        for precision, peak in self.peak_tflops.items():
            require_positive(f"hardware.peak_tflops.{precision}", peak)
        for key in ("memory_gib", "memory_gb_per_second", "watts"):
            if getattr(self, key) is not None:
                require_positive(f"hardware.{key}", getattr(self, key))
        _check_interval("hardware.utilisation", self.utilisation_low, self.utilisation_high)
        _check_interval("hardware.price", self.price_low, self.price_high)
        if self.utilisation_high is not None and self.utilisation_high > 1:
            raise UserError(
                "hardware.utilisation_high",
                self.utilisation_high,
                "is a share of the dense peak and cannot be above 1",
                "was it measured against the peak of another precision?",
            )

    def peak_flops_per_second(self, precision: str) -> float:
        """Dense peak of one device; `UserError` for a precision that it does not have."""
        if not self.peak_tflops:
            raise UserError(
                "hardware",
                self.name,
                "no peak is known for it, so no time can be computed",
                "name "
                "the device with hardware=NAME, as in hardware=a100_sxm_80gb, or give "
                f"hardware.peak_tflops.{precision}",
            )
        if precision not in self.peak_tflops:
            raise UserError(
                "train.precision",
                precision,
                f"{self.name} has no peak for it",
                f"choose one of "
                f"{', '.join(self.peak_tflops)}, or give hardware.peak_tflops.{precision}",
            )
        return self.peak_tflops[precision] * 1e12


def _check_interval(key: str, low: float | None, high: float | None) -> None:
    if low is None and high is None:
        return
    if low is None or high is None or not 0 < low <= high:
        raise UserError(
            f"{key}_low",
            "null" if low is None else low,
            f"must be above 0 and at most {key}_high={'null' if high is None else high}",
            "give both, or leave both null",
        )


@dataclass(kw_only=True)
class ClusterSettings:
    """A machine of many nodes. An unknown figure is null, never 0."""

    name: str
    """The system's name."""
    nodes: int
    """Nodes of one job."""
    devices_per_node: int
    """Devices of `hardware` in one node."""
    goodput: float
    """Share of the allocated time that ends up in the result (restarts, waits, lost work)."""
    link_gb_per_second: float | None
    """Network bandwidth of a node, 10^9 bytes/s."""
    carbon_g_per_kwh: float | None
    """Grams of CO2 for one kWh where the system stands."""
    source: str
    """Where the figures come from."""
    partition: str | None = None
    """Slurm's partition of these nodes; `launch.partition` wins."""
    max_hours: float | None = None
    """Time limit of that partition."""
    cores_per_node: int | None = None
    """CPU cores that jobs may use, divided among the ranks where `launch.cpus_per_task` is null."""
    memory_gib_per_node: float | None = None
    """Host memory of a node that jobs may use, 2^30 bytes."""
    address_suffix: str | None = None
    """What turns a node's name into that of its fast network, where ranks meet by it."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables for the network, NCCL_SOCKET_IFNAME and the like; those that are set stay."""

    def __post_init__(self) -> None:
        """Check the values."""
        for key in ("nodes", "devices_per_node", "goodput"):
            require_positive(f"cluster.{key}", getattr(self, key))
        if self.goodput > 1:
            raise UserError("cluster.goodput", self.goodput, "is a share and cannot be above 1")
        for key in (
            *("link_gb_per_second", "carbon_g_per_kwh", "max_hours"),
            *("cores_per_node", "memory_gib_per_node"),
        ):
            if getattr(self, key) is not None:
                require_positive(f"cluster.{key}", getattr(self, key))

    @property
    def devices(self) -> int:
        """Devices of one job."""
        return self.nodes * self.devices_per_node
