"""Settings of devices (`conf/hardware/`) and of systems (`conf/cluster/`)."""

from dataclasses import dataclass, field

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, count, positive, require_choice

__all__ = ["PRECISIONS", "ClusterSettings", "HardwareSettings"]

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(kw_only=True)
class HardwareSettings:
    """One device as bought or rented. An unknown value is null, never 0."""

    name: str
    """The product's name."""
    kind: str
    """gpu | cpu. A `cpu` device is one core."""
    match: list[str]
    """Substrings of the driver's device name, to recognise the device at run time."""
    peak_tflops: dict[str, float] = positive(1e9)
    """Peak dense TFLOP/s by precision (fp32, fp16, bf16); never the sparse peak."""
    precision: str
    """Default training precision, unless `train.precision` is set: fp32 | bf16 | fp16."""
    memory_gib: float | None = positive(1e6)
    """Device memory, GiB."""
    memory_gb_per_second: float | None = positive(1e9)
    """Memory bandwidth, 10^9 bytes/s."""
    watts: float | None = positive(1e6)
    """Board power, W."""
    utilisation_low: float | None = positive(1)
    """Fraction of the peak reached in training, lower bound."""
    utilisation_high: float | None = positive(1)
    """The same, upper bound."""
    price_low: float | None = positive(1e9)
    """Price of one device-hour, lower bound of public price lists."""
    price_high: float | None = positive(1e9)
    """The same, upper bound."""
    currency: str
    """Currency of the prices (ISO 4217)."""
    price_date: str
    """Month of the price lists, YYYY-MM."""
    source: str
    """Source of the values."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "hardware")
        require_choice("hardware.kind", self.kind, ("gpu", "cpu"))
        require_choice("hardware.precision", self.precision, PRECISIONS)
        _check_interval("hardware.utilisation", self.utilisation_low, self.utilisation_high)
        _check_interval("hardware.price", self.price_low, self.price_high)

    def peak_flops_per_second(self, precision: str) -> float:
        """Return the dense peak of one device; raises `UserError` for an unknown precision."""
        if not self.peak_tflops:
            raise UserError(
                "hardware",
                self.name,
                "its peak is unknown, so no time can be computed",
                "name "
                "the device with hardware=NAME, as in hardware=a100_sxm_80gb, or set "
                f"hardware.peak_tflops.{precision}",
            )
        if precision not in self.peak_tflops:
            raise UserError(
                "train.precision",
                precision,
                f"{self.name} has no peak for this precision",
                f"choose one of "
                f"{', '.join(self.peak_tflops)}, or set hardware.peak_tflops.{precision}",
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
            "set both, or leave both null",
        )


@dataclass(kw_only=True)
class ClusterSettings:
    """A cluster. An unknown value is null, never 0."""

    name: str
    """Name of the system."""
    nodes: int = count(10**6)
    """Nodes per job."""
    devices_per_node: int = count(10**4)
    """Devices (`hardware`) per node."""
    goodput: float = positive(1)
    """Fraction of the allocated time that contributes to the result; the rest is restarts, waiting
    and lost work."""
    link_gb_per_second: float | None = positive(1e15)
    """Network bandwidth of a node, 10^9 bytes/s."""
    carbon_g_per_kwh: float | None = positive(1e5)
    """Grams of CO2 per kWh at the site."""
    source: str
    """Source of the values."""
    partition: str | None = None
    """Slurm partition of these nodes; `launch.partition` overrides it."""
    max_hours: float | None = positive(1e5, None)
    """Time limit of that partition."""
    cores_per_node: int | None = count(10**5, default=None)
    """CPU cores per node for jobs, split over the ranks if `launch.cpus_per_task` is null."""
    memory_gib_per_node: float | None = positive(1e7, None)
    """Host memory per node for jobs, GiB."""
    address_suffix: str | None = None
    """Suffix that turns a node's name into its name on the fast network, for the rendezvous."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables of the network, such as NCCL_SOCKET_IFNAME; existing ones are kept."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "cluster")

    @property
    def devices(self) -> int:
        """Devices per job."""
        return self.nodes * self.devices_per_node
