"""What data parallelism and ZeRO send over the network in a step."""

from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.accounting.memory import TrainingSetup
from hpc_llm.accounting.method import Method, optimized_parameters
from hpc_llm.settings import ClusterSettings
from hpc_llm.settings.checks import require_positive

__all__ = ["network_seconds", "zero_traffic"]


def _volume(arch: Architecture, method: Method, setup: TrainingSetup, micro_steps: int) -> int:
    """Bytes of all collectives of a step, counted once."""
    require_positive("micro_steps", micro_steps)
    trained = optimized_parameters(arch, method)
    if setup.zero_stage < 3:
        return setup.width * 2 * trained
    return setup.width * micro_steps * (2 * parameter_count(arch).total + trained)


def zero_traffic(
    arch: Architecture, method: Method, setup: TrainingSetup, micro_steps: int = 1
) -> int:
    """Bytes that one rank sends in an optimizer step of `micro_steps` forward passes.

    Stages 0 to 2 reduce the gradients once (2 w Nt); stage 3 gathers the weights twice in every
    forward and backward pass and scatters the gradients (Rajbhandari et al. 2020, section 7).
    """
    ranks = setup.data_parallel
    return _volume(arch, method, setup, micro_steps) * (ranks - 1) // ranks


def network_seconds(
    arch: Architecture,
    method: Method,
    setup: TrainingSetup,
    cluster: ClusterSettings,
    micro_steps: int = 1,
) -> float | None:
    """Seconds in which a node sends its part of one optimizer step to the others.

    What stays inside a node is not counted, and nothing is overlapped with computation. None
    where the network's bandwidth is not known; 0 on one node.
    """
    if cluster.nodes == 1:
        return 0.0
    if cluster.link_gb_per_second is None:
        return None
    volume = _volume(arch, method, setup, micro_steps) * (cluster.nodes - 1) / cluster.nodes
    return volume / (cluster.link_gb_per_second * 1e9)
