"""Shared code of the systems in `bench/train.py`: turns, memory, tensors, the final loss."""

import time
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from cases import Case
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm.surgery.loading import DTYPES
from hpc_llm.training import process_group
from hpc_llm.training.data.rows import IGNORED, Rows

__all__ = [
    "Finished",
    "Gate",
    "autocast",
    "begin_peak",
    "inputs",
    "peak_bytes",
    "resident",
    "warm_up",
]


class Finished(BaseException):
    """Raised when the parent ends the comparison."""


class Gate:
    """A gate that a system passes at every step boundary, where it waits for its turn."""

    def __init__(self, pipe: Connection, case: Case, model: torch.nn.Module) -> None:
        """`model` is the trained model."""
        self.pipe, self.case, self.model = pipe, case, model
        self.passed, self.began = 0, 0.0
        self.inside = 0.0
        """Seconds of the turn inside the engine (hpc_llm only)."""

    def __call__(self) -> None:
        """End a step and start the next."""
        if self.passed % self.case.steps == 0:
            if self.passed:
                synchronise()
                seconds = time.perf_counter() - self.began
                self.pipe.send({"seconds": seconds, "inside": self.inside, "peak": peak_bytes()})
            else:
                self.pipe.send("ready")
            if self.pipe.recv() != "go":
                self.pipe.send(final_loss(self.case, self.model))
                raise Finished
            self.inside, self.began = 0.0, time.perf_counter()
        self.passed += 1


def synchronise() -> None:
    """Synchronise with the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# Peak memory. On a GPU, that of torch's allocator. On a CPU, the kernel's peak resident memory
# (VmHWM) since just before the model was built, minus the resident memory at that point: it
# includes temporaries inside operators and libraries, which a count of tensors does not.


def warm_up(precision: str) -> None:
    """Load the libraries' code and start their threads before the baseline is measured."""
    config = LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=64,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    ids = torch.arange(64)[None]
    with autocast(precision):
        model(input_ids=ids, labels=ids).loss.backward()
    torch.optim.AdamW(model.parameters(), fused=True).step()


_base = [0]


def begin_peak() -> None:
    """Measure the baseline."""
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    _base[0] = resident("VmRSS")


def resident(field: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def peak_bytes() -> int:
    """Return the peak since the baseline."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resident("VmHWM") - _base[0]


@torch.no_grad()
def final_loss(case: Case, model: torch.nn.Module) -> float:
    """Return the trained model's loss on the first sequence: equal for equivalent systems."""
    rows = case.batches(1)[0]
    ids, positions, labels = (t[:1] for t in tensors(rows))
    with autocast(case.precision):
        logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(
        logits[0].float(), labels[0], ignore_index=IGNORED, reduction="mean"
    )
    return float(loss)


def autocast(precision: str) -> Any:
    """Return the mixed-precision context of plain PyTorch."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(process_group.device_of().type, DTYPES[precision])


def tensors(rows: Rows) -> list[torch.Tensor]:
    """Return ids, positions and labels (the next token) on the device."""
    arrays = (rows.input_ids, rows.position_ids, rows.labels)
    return [torch.from_numpy(array).to(process_group.device_of()) for array in arrays]


def inputs(rows: Rows) -> dict[str, torch.Tensor]:
    """Return the keyword arguments of a transformers model, which shifts the labels itself."""
    ids, positions, labels = tensors(rows)
    own = torch.full_like(labels, IGNORED)
    own[:, 1:] = labels[:, :-1]
    return {"input_ids": ids, "position_ids": positions, "labels": own}
