"""Copies between host and device: the only module that knows of pinned memory.

A copy from or to pinned memory runs beside the host's work; without it CUDA copies through a
buffer of its own and the host waits. On a CPU nothing is copied to the device.
"""

import numpy as np
import torch

__all__ = ["HostCopies", "to_device"]


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return `array` on `device`; a CPU shares its memory. On a GPU the host does not wait."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class HostCopies:
    """Copies in host memory that reuse their buffers, pinned for tensors of a GPU.

    New memory costs about as much time as the copy itself: the kernel zeroes it first.
    """

    def __init__(self) -> None:
        """Start without buffers."""
        self._kept: dict[str, torch.Tensor] = {}
        self._devices: set[torch.device] = set()

    def copy(self, key: str, value: torch.Tensor) -> torch.Tensor:
        """Return a contiguous copy of `value`; the next copy with the same key overwrites it.

        The copy of a tensor on a GPU is complete after `wait`.
        """
        kept, on_gpu = self._kept.get(key), value.is_cuda
        if kept is None or kept.shape != value.shape or kept.dtype != value.dtype:
            kept = torch.empty(value.shape, dtype=value.dtype, pin_memory=on_gpu)
            self._kept[key] = kept
        if on_gpu:
            self._devices.add(value.device)
        return kept.copy_(value.detach(), non_blocking=on_gpu)

    def wait(self) -> None:
        """Wait until all copies are complete."""
        for device in self._devices:
            torch.cuda.synchronize(device)
        self._devices.clear()
