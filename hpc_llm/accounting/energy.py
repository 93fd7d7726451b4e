"""Energy as measured: the counter that NVIDIA's driver keeps for each GPU (Volta and newer).

`nvmlDeviceGetTotalEnergyConsumption` (NVML API reference) counts millijoules of the whole board
since the driver was loaded. Where there is no such counter the bill falls back to board power,
and says so.
"""

__all__ = ["EnergyCounter"]


class EnergyCounter:
    """Joules of one GPU between two readings."""

    def __init__(self, uuid: str | None) -> None:
        """Count from now on; `uuid` is the GPU's as NVML writes it, None where there is none."""
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
        """Joules since the last call, or since the start; None where nothing is measured."""
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
