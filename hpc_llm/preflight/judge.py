"""Find bad nodes: pure functions over measured metrics.

A node is compared with the median of all nodes. With an even number it is the faster of the two
middle values: else the slow node of a pair would contribute half of its own reference. Devices in
the catalogue are also compared with their peak, to detect nodes that are all slow.
"""

import statistics
from collections.abc import Iterator, Mapping

from hpc_llm.preflight.metrics import HostFigures
from hpc_llm.settings import PreflightSettings

__all__ = ["clock_offset", "judge"]


def judge(hosts: Mapping[str, HostFigures], limits: PreflightSettings) -> dict[str, list[str]]:
    """Return the problems of each host, one message each; healthy hosts are omitted.

    A message reports the value, its reference, and the setting of the threshold.
    """
    problems = {
        name: [*_counted(host, limits), *_room(host, limits)] for name, host in hosts.items()
    }
    for name, words in [*_compute(hosts, limits), *_links(hosts, limits), *_clocks(hosts, limits)]:
        problems[name].append(words)
    return {name: words for name, words in problems.items() if words}


def _counted(host: HostFigures, limits: PreflightSettings) -> Iterator[str]:
    """Yield silent ranks, failed ranks and missing devices."""
    if host.silent:
        ranks = ", ".join(map(str, host.silent))
        yield f"silent for preflight.wait_seconds={limits.wait_seconds:g}: rank {ranks}"
    yield from (f"rank {rank.rank}: {rank.error}" for rank in host.ranks if rank.error)
    for rank in host.ranks[:1]:
        if rank.devices < rank.devices_expected:
            yield f"{rank.devices} of {rank.devices_expected} devices"


def _room(host: HostFigures, limits: PreflightSettings) -> Iterator[str]:
    """Yield full memory and full disks."""
    names = {
        "free_gib": ("free memory", "min_free_gib"),
        "run_gib": ("free disk of the run folder", "min_disk_gib"),
        "tmp_gib": ("free disk of /tmp", "min_disk_gib"),
    }
    for key, (words, setting) in names.items():
        value, limit = host.least(key), getattr(limits, setting)
        if value is not None and value < limit:
            yield f"{value:.2f} GiB of {words}, preflight.{setting}={limit:g}"


def _compute(
    hosts: Mapping[str, HostFigures], limits: PreflightSettings
) -> Iterator[tuple[str, str]]:
    """Yield devices slower than the median of all devices, or far below the catalogue's peak."""
    rates = [
        rank.flops_per_second
        for host in hosts.values()
        for rank in host.ranks
        if rank.flops_per_second is not None
    ]
    for name, host in hosts.items():
        slowest, share = host.slowest, host.peak_share
        if slowest is None:
            continue
        words = _slower(slowest.flops_per_second or 0.0, rates, 1e12, "TFLOP/s", limits)
        if words:
            yield name, f"rank {slowest.rank}: {words}"
        if share is not None and limits.min_peak_share and share < limits.min_peak_share:
            yield (
                name,
                f"rank {slowest.rank}: {share:.0%} of the peak of {slowest.device}, "
                f"preflight.min_peak_share={limits.min_peak_share:g}",
            )


def _links(
    hosts: Mapping[str, HostFigures], limits: PreflightSettings
) -> Iterator[tuple[str, str]]:
    """Yield nodes whose best link is slower than the median over nodes."""
    for link in sorted({link for host in hosts.values() for link in host.links}):
        rates = [host.links[link] for host in hosts.values() if link in host.links]
        for name, host in hosts.items():
            words = link in host.links and _slower(host.links[link], rates, 1, "GB/s", limits)
            if words:
                yield name, f"{link}: {words}"


def _slower(
    rate: float, rates: list[float], unit: float, unit_name: str, limits: PreflightSettings
) -> str | None:
    median = statistics.median_high(rates)
    if rate * limits.slow_factor >= median:
        return None
    times = f"{median / rate:.1f} times slower than" if rate else "against"
    return (
        f"{rate / unit:.3g} {unit_name}, {times} the median {median / unit:.3g} "
        f"(preflight.slow_factor={limits.slow_factor:g})"
    )


def _clocks(
    hosts: Mapping[str, HostFigures], limits: PreflightSettings
) -> Iterator[tuple[str, str]]:
    """Yield clocks far from the median; of two, that of rank 0 counts as correct."""
    known = [host.clock_seconds for host in hosts.values() if host.clock_seconds is not None]
    if not known:
        return
    middle = min(statistics.median_low(known), statistics.median_high(known), key=abs)
    for name, host in hosts.items():
        away = 0.0 if host.clock_seconds is None else host.clock_seconds - middle
        if abs(away) > limits.max_clock_seconds:
            limit = f"preflight.max_clock_seconds={limits.max_clock_seconds:g}"
            yield name, f"clock {away:+.1f} s from the others, {limit}"


def clock_offset(pings: list[tuple[float, float, float]]) -> float:
    """Return this clock minus a remote one, in seconds, from (sent, remote, received).

    `sent` and `received` are local times, `remote` is the remote time in between. The shortest
    round trip is used; the error is at most half of it (Cristian 1989, Distributed Computing
    3:146).
    """
    sent, remote, received = min(pings, key=lambda ping: ping[2] - ping[0])
    return (sent + received) / 2 - remote
