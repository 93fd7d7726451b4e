"""Whether a stage fits into the devices' memory, and what would make it fit.

The search is small: ZeRO stage, recomputation and rows of a forward pass. Among what fits, the
plan with the fewest FLOPs comes first, then the one that sends the least, then the largest
micro-batch.
"""

from dataclasses import dataclass, replace

from hpc_llm.accounting.architecture import Architecture
from hpc_llm.accounting.flops import step_flops
from hpc_llm.accounting.memory import MemoryPlan, TrainingSetup, fits, memory
from hpc_llm.accounting.method import Method
from hpc_llm.accounting.traffic import zero_traffic
from hpc_llm.settings import HardwareSettings, RunConfig

__all__ = ["Fitting", "remedy", "run_setup", "what_fits"]


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """One way of carrying out a stage that fits."""

    zero_stage: int
    recompute: bool
    micro_batch_size: int
    memory_bytes: int
    share_of_flops: float
    """FLOPs carried out, relative to those without recomputation."""
    traffic_bytes: int
    """Bytes that one rank sends in an optimizer step."""

    def overrides(self, sequence_length: int) -> str:
        """What to write on the command line."""
        tokens = self.micro_batch_size * sequence_length
        return (
            f"zero=stage{self.zero_stage} train.recompute={str(self.recompute).lower()} "
            f"train.micro_batch_tokens={tokens}"
        )


def run_setup(cfg: RunConfig) -> tuple[TrainingSetup, int]:
    """Return how the trainer divides a step of `cfg` on the cluster, and its micro-steps.

    A rank is one GPU. On CPUs `launch.processes` are the ranks.
    """
    train = cfg.train
    ranks = cfg.cluster.devices if cfg.hardware.kind == "gpu" else cfg.launch.processes
    rows = max(1, train.batch_tokens // train.sequence_length // ranks)
    limit = rows
    if train.micro_batch_tokens is not None:
        limit = max(1, min(rows, train.micro_batch_tokens // train.sequence_length))
    micro = max(size for size in range(1, limit + 1) if rows % size == 0)
    setup = TrainingSetup(
        precision=train.precision,
        sequence_length=train.sequence_length,
        micro_batch_size=micro,
        zero_stage=cfg.zero.stage,
        data_parallel=ranks,
        offload_optimizer=cfg.zero.offload_optimizer,
        offload_parameters=cfg.zero.offload_parameters,
        bucket_elements=cfg.zero.bucket_elements,
    )
    return setup, rows // micro


def _fitting(
    arch: Architecture, method: Method, setup: TrainingSetup, plan: MemoryPlan, micro_steps: int
) -> Fitting:
    step = step_flops(arch, method, 1, setup.sequence_length).total
    plain = step_flops(arch, replace(method, recompute=False), 1, setup.sequence_length).total
    return Fitting(
        zero_stage=setup.zero_stage,
        recompute=method.recompute,
        micro_batch_size=setup.micro_batch_size,
        memory_bytes=plan.total,
        share_of_flops=step / plain,
        traffic_bytes=zero_traffic(arch, method, setup, micro_steps),
    )


def what_fits(
    arch: Architecture,
    method: Method,
    setup: TrainingSetup,
    device: HardwareSettings,
    micro_steps: int = 1,
) -> list[Fitting]:
    """Return every way that fits into `device`, the cheapest first; [] if none does.

    ZeRO stages 1 to 3, with and without recomputation, and every micro-batch that divides the
    rows of a rank.
    """
    rows = setup.micro_batch_size * micro_steps
    sizes = [size for size in range(1, rows + 1) if rows % size == 0]
    found = []
    for recompute in (False, True):
        tried = replace(method, recompute=recompute)
        for stage in (1, 2, 3):
            offload = setup.offload_parameters and stage == 3
            for size in sizes:
                other = replace(
                    setup, zero_stage=stage, micro_batch_size=size, offload_parameters=offload
                )
                plan = memory(arch, tried, other)
                if fits(plan, device):
                    found.append(_fitting(arch, tried, other, plan, rows // size))
    return sorted(found, key=lambda f: (f.share_of_flops, f.traffic_bytes, -f.micro_batch_size))


def remedy(cfg: RunConfig, arch: Architecture, method: Method) -> str:
    """Return overrides with which a stage fits: on these devices, else on more; "" if none do."""
    setup, micro_steps = run_setup(cfg)
    length = setup.sequence_length
    found = what_fits(arch, method, setup, cfg.hardware, micro_steps)
    if found:
        return found[0].overrides(length)
    rows = setup.micro_batch_size * micro_steps
    for factor in (factor for factor in range(2, rows + 1) if rows % factor == 0):
        more = replace(setup, data_parallel=factor * setup.data_parallel, micro_batch_size=1)
        found = what_fits(arch, method, more, cfg.hardware, rows // factor)
        if found:
            return f"cluster.nodes={factor * cfg.cluster.nodes} {found[0].overrides(length)}"
    return ""
