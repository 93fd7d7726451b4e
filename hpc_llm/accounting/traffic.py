"""Network traffic of data parallelism and ZeRO in a step."""

from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.accounting.memory import TrainingSetup
from hpc_llm.accounting.method import Method, optimized_parameters
from hpc_llm.settings import ClusterSettings
from hpc_llm.settings.checks import require_positive

__all__ = ["network_seconds", "network_seconds_of", "zero_traffic"]


def _volume(total: int, trained: int, setup: TrainingSetup, micro_steps: int) -> int:
    """Return the bytes of all collectives of a step, counted once."""
    require_positive("micro_steps", micro_steps)
    if setup.zero_stage < 3:
        return setup.width * 2 * trained
    return setup.width * micro_steps * (2 * total + trained)


def zero_traffic(
    arch: Architecture, method: Method, setup: TrainingSetup, micro_steps: int = 1
) -> int:
    """Return the bytes that one rank sends in a step of `micro_steps` gradient accumulation steps.

    Stages 0 to 2 all-reduce the gradients once (2 w Nt); stage 3 all-gathers the weights twice, for
    every forward and backward pass, and reduce-scatters the gradients (Rajbhandari et al. 2020,
    section 7).
    """
    ranks, total = setup.data_parallel, parameter_count(arch).total
    volume = _volume(total, optimized_parameters(arch, method), setup, micro_steps)
    return volume * (ranks - 1) // ranks


def network_seconds(
    arch: Architecture,
    method: Method,
    setup: TrainingSetup,
    cluster: ClusterSettings,
    micro_steps: int = 1,
) -> float | None:
    """Return the seconds in which a node sends its part of one optimizer step to the others.

    Traffic inside a node is not counted, and nothing overlaps with compute. None where the
    bandwidth of the network is unknown; 0 on one node.
    """
    sizes = parameter_count(arch).total, optimized_parameters(arch, method)
    return network_seconds_of(*sizes, setup, cluster, micro_steps)


def network_seconds_of(
    total: int, trained: int, setup: TrainingSetup, cluster: ClusterSettings, micro_steps: int = 1
) -> float | None:
    """Return `network_seconds` of a model with `total` parameters, `trained` of them trained."""
    if cluster.nodes == 1:
        return 0.0
    if cluster.link_gb_per_second is None:
        return None
    volume = _volume(total, trained, setup, micro_steps) * (cluster.nodes - 1) / cluster.nodes
    return volume / (cluster.link_gb_per_second * 1e9)
