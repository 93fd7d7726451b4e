"""Network traffic of data parallelism, ZeRO and sequence parallelism in a step."""

from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.accounting.memory import TrainingSetup
from hpc_llm.accounting.method import Method, optimized_parameters
from hpc_llm.settings import ClusterSettings
from hpc_llm.settings.checks import require_positive

__all__ = [
    "network_seconds",
    "network_seconds_of",
    "sequence_traffic",
    "tensor_traffic",
    "zero_traffic",
]


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


def sequence_traffic(
    arch: Architecture, method: Method, setup: TrainingSetup, micro_steps: int = 1
) -> int:
    """Return the bytes that one rank exchanges with the others that split its sequences in a step.

    In each layer, all-to-alls of queries, keys, values and outputs: forward, backward, and forward
    again with recomputation (Jacobs et al. 2023, arXiv 2309.14509, section 3.2). Fewer key-value
    heads than ranks are repeated.
    """
    size = setup.sequence_parallel
    key_value = arch.kv_size // arch.kv_heads * max(arch.kv_heads, size)
    numbers = arch.num_layers * 2 * (arch.query_size + key_value) * setup.rank_tokens
    passes = 3 if method.recompute else 2
    return micro_steps * passes * setup.width * numbers * (size - 1) // size


def tensor_traffic(
    arch: Architecture, method: Method, setup: TrainingSetup, micro_steps: int = 1
) -> int:
    """Return the bytes that one rank exchanges with the others that split its weights in a step.

    Each layer all-reduces the outputs of attention and MLP (forward, and again with recomputation)
    and the gradients at the inputs of queries, keys, values, gate and up projection (Shoeybi et al.
    2019, arXiv 1909.08053, section 3, has one for each half). A trained LM head is all-reduced,
    and the gradient at its input gathered. An all-reduce sends each number twice.
    """
    size, h = setup.tensor_parallel, arch.hidden_size
    passes = (4 if method.recompute else 2) + 3 + 1 + arch.gated_mlp
    head = arch.vocab_size * h * method.trains_head
    numbers = 2 * passes * arch.num_layers * h * setup.rank_tokens
    numbers += 2 * head + h * setup.rank_tokens
    return micro_steps * setup.width * numbers * (size - 1) // size


def _between_nodes(volume: int, size: int, cluster: ClusterSettings) -> float:
    """Return the bytes that a node sends to others of an exchange among `size` adjacent ranks."""
    each = cluster.devices_per_node
    if size == 1 or each % size == 0:
        return 0.0
    outside = 1 - min(each, size) / size
    return each * volume * size / (size - 1) * outside


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
    seconds = network_seconds_of(*sizes, setup, cluster, micro_steps)
    if not seconds or cluster.link_gb_per_second is None:
        return seconds
    exchanged = sequence_traffic(arch, method, setup, micro_steps)
    outside = _between_nodes(exchanged, setup.sequence_parallel, cluster)
    reduced = tensor_traffic(arch, method, setup, micro_steps)
    outside += _between_nodes(reduced, setup.tensor_parallel, cluster)
    return seconds + outside / (cluster.link_gb_per_second * 1e9)


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
