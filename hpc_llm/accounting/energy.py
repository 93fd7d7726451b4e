"""Measured energy: the counter of NVIDIA's driver for each GPU (Volta and newer).

`nvmlDeviceGetTotalEnergyConsumption` (NVML API reference) counts millijoules of the whole board
since the driver was loaded. Without such a counter the cost report falls back to board power and
marks the energy as `model`.
"""

__all__ = ["EnergyCounter"]


class EnergyCounter:
    """Joules of one GPU between two readings."""

    def __init__(self, uuid: str | None) -> None:
        """Start counting; `uuid` is that of the GPU as in NVML, None without a GPU."""
        self._handle = None
        if uuid is not None:
            self._handle = _handle(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
        self._last = self._millijoules()

    def _millijoules(self) -> int | None:
        if self._handle is None:
            return None
        import pynvml

        try:
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except pynvml.NVMLError:  # older than Volta, or a part of a GPU (MIG)
            return None

    def joules(self) -> float | None:
        """Return joules since the last call, or since the start; None where not measured."""
        before, self._last = self._last, self._millijoules()
        if before is None or self._last is None:
            return None
        return max(0, self._last - before) / 1000  # a reloaded driver counts from 0 again


def _handle(uuid: str) -> object | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError:  # no driver, or not this vendor's GPU
        return None
