"""Report of a preflight: a table by host, `preflight.json`, and the list of nodes to exclude."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc_llm.accounting.columns import columns, figure
from hpc_llm.errors import EXIT_FAILED, EXIT_NODES
from hpc_llm.preflight.metrics import HostFigures, ReduceFigures
from hpc_llm.rundir import write_json, write_text

__all__ = ["EXCLUDE", "JSON", "Report", "write_report"]

JSON, EXCLUDE = "preflight.json", "preflight.exclude"
HEADS = (
    "host",
    "device",
    "ranks",
    "devices",
    "free GiB",
    "TFLOP/s",
    "of peak",
    "run GiB",
    "/tmp GiB",
    "clock ms",
    "GB/s",
    "",
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Metrics of all nodes, and the verdict."""

    hosts: dict[str, HostFigures]
    problems: dict[str, list[str]]
    """Problems by host."""
    reduces: list[ReduceFigures]
    failures: list[str]
    """Failed collective measurements, with the reason; another rank may be the cause."""
    seconds: float

    @property
    def exclude(self) -> list[str]:
        """The nodes to exclude: the bad ones; none if all are bad or one has no known name.

        A problem of all nodes may be caused by the settings or by a shared resource; other nodes
        would have it too.
        """
        bad = list(self.problems)
        nameless = any(name.startswith("(") for name in bad)
        return [] if nameless or len(bad) == len(self.hosts) else bad

    @property
    def code(self) -> int:
        """The exit code: 0, EXIT_NODES with nodes to exclude, else EXIT_FAILED."""
        if self.exclude:
            return EXIT_NODES
        return EXIT_FAILED if self.problems or self.failures else 0

    @property
    def text(self) -> str:
        """The table and the verdict."""
        lines = columns([HEADS, *(self._cells(host) for host in self.hosts.values())], left=2)
        lines += ["", *(_reduce_line(reduce) for reduce in self.reduces), *self.failures]
        for name, words in self.problems.items():
            lines += [f"{name}: {word}" for word in words]
        return "\n".join([*lines, f"{self._verdict()} ({self.seconds:.1f} s)"]) + "\n"

    def _verdict(self) -> str:
        if self.code == 0:
            return f"{len(self.hosts)} nodes are healthy"
        if self.exclude:
            return f"exclude bad nodes with sbatch --exclude={','.join(self.exclude)}"
        return (
            "no node can be excluded: all are bad, or the bad one is unknown; check the settings "
            "and resources that the nodes share"
        )

    def _cells(self, host: HostFigures) -> list[str]:
        first, slowest, share = next(iter(host.ranks), None), host.slowest, host.peak_share
        rate = None if slowest is None else slowest.flops_per_second
        clock = host.clock_seconds
        return [
            host.host,
            first.device if first else "n/a",
            str(len(host.ranks) + len(host.silent)),
            f"{first.devices}/{first.devices_expected}" if first else "n/a",
            figure(host.least("free_gib")),
            figure(None if rate is None else rate / 1e12),
            "n/a" if share is None else f"{share:.0%}",
            figure(host.least("run_gib")),
            figure(host.least("tmp_gib")),
            "n/a" if clock is None else f"{1000 * clock:.1f}",
            " ".join(f"{link} {figure(rate)}" for link, rate in host.links.items()) or "n/a",
            "BAD" if host.host in self.problems else "ok",
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the contents of `preflight.json`."""
        return {
            "hosts": {name: asdict(host) for name, host in self.hosts.items()},
            "problems": self.problems,
            "exclude": self.exclude,
            "all_reduce": [
                {**asdict(reduce), "gb_per_second": reduce.gb_per_second} for reduce in self.reduces
            ],
            "failures": self.failures,
            "seconds": self.seconds,
        }


def _reduce_line(reduce: ReduceFigures) -> str:
    return (
        f"all-reduce over {reduce.ranks} ranks with {reduce.link}: "
        f"{reduce.bytes / 2**20:g} MiB in {1000 * reduce.seconds:.1f} ms, "
        f"{figure(reduce.gb_per_second)} GB/s"
    )


def write_report(report: Report, folder: Path, facts: dict[str, Any]) -> None:
    """Write `preflight.json`, with `facts` added, and `preflight.exclude`.

    The exclude file lists the bad nodes in the format of sbatch --exclude; it is removed if there
    are none.
    """
    write_json(folder / JSON, {**facts, **report.as_json()})
    exclude = folder / EXCLUDE
    if report.exclude:
        write_text(exclude, ",".join(report.exclude) + "\n")
    else:
        exclude.unlink(missing_ok=True)
