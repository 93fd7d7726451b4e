"""Utilisation of the peak in a measured interval: MFU and HFU by named conventions."""

from hpc_llm.settings.checks import require_positive

__all__ = ["utilisation_metrics"]


def utilisation_metrics(
    seconds: float, peak_flops_per_second: float, *, exact: int, six_n: int, hardware: int
) -> dict[str, float]:
    """Return `perf/mfu_exact`, `perf/mfu_6n` and `perf/hfu` of an interval of all devices.

    `exact` are the model FLOPs (causal, without recomputation), `six_n` 6 N D, `hardware` the FLOPs
    as executed (dense, with recomputation); the peak is that of all devices together
    (`Machine.flops_per_second`). Compare only numbers of the same convention.
    """
    require_positive("seconds", seconds)
    require_positive("peak_flops_per_second", peak_flops_per_second)
    most = seconds * peak_flops_per_second
    return {
        "perf/mfu_exact": exact / most,
        "perf/mfu_6n": six_n / most,
        "perf/hfu": hardware / most,
    }
