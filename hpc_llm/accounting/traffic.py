"""Network traffic of data parallelism, ZeRO and sequence parallelism in a step."""

from typing import NamedTuple

from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.accounting.memory import TrainingSetup
from hpc_llm.accounting.method import Method, optimized_parameters
from hpc_llm.settings import ClusterSettings
from hpc_llm.settings.checks import require_positive

__all__ = [
    "NodeTraffic",
    "network_seconds",
    "network_seconds_of",
    "node_traffic",
    "sequence_traffic",
    "tensor_traffic",
    "volumes",
    "zero_traffic",
]


class NodeTraffic(NamedTuple):
    """Bytes that one node sends in an optimizer step."""

    between: float
    """To other nodes."""
    inside: float
    """From device to device inside the node."""


def volumes(total: int, trained: int, setup: TrainingSetup, micro_steps: int) -> tuple[int, int]:
    """Return the bytes of the collectives of a step over all ranks, and of those inside a node.

    Each is counted once. With `node_ranks` (hpZ), layers are gathered inside the node, except for
    the first gather of trained parameters after an update; frozen ones are never gathered outside.
    """
    require_positive("micro_steps", micro_steps)
    if setup.zero_stage < 3:
        return setup.width * 2 * trained, 0
    gathers, gradients = 2 * micro_steps * total, micro_steps * trained
    if setup.node_ranks is None:
        return setup.width * (gathers + gradients), 0
    return setup.width * (trained + gradients), setup.width * (gathers - trained)


def zero_traffic(
    arch: Architecture, method: Method, setup: TrainingSetup, micro_steps: int = 1
) -> int:
    """Return the bytes that one rank sends in a step of `micro_steps` gradient accumulation steps.

    Stages 0 to 2 all-reduce the gradients once (2 w Nt); stage 3 all-gathers the weights twice, for
    every forward and backward pass, and reduce-scatters the gradients (Rajbhandari et al. 2020,
    section 7). With node partitioning (hpZ of ZeRO++, Wang et al. 2023) the sum is the same, but
    for frozen parameters, and most of it stays inside the node.
    """
    ranks, total = setup.data_parallel, parameter_count(arch).total
    wide, narrow = volumes(total, optimized_parameters(arch, method), setup, micro_steps)
    each = setup.node_ranks or 1
    return wide * (ranks - 1) // ranks + narrow * (each - 1) // each


def node_traffic(
    total: int, trained: int, setup: TrainingSetup, nodes: int, micro_steps: int = 1
) -> NodeTraffic:
    """Return what one of `nodes` nodes sends in a step of a model with `total` parameters.

    Each byte of a collective enters a node once, however many of its devices need it.
    """
    wide, narrow = volumes(total, trained, setup, micro_steps)
    ranks = setup.data_parallel
    each = ranks // nodes
    between = wide * (nodes - 1) / nodes
    inside = max(0.0, each * wide * (ranks - 1) / ranks - between)  # 0: split weights fill a node
    return NodeTraffic(between=between, inside=inside + narrow * (each - 1))


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
    sent = node_traffic(total, trained, setup, cluster.nodes, micro_steps).between
    return sent / (cluster.link_gb_per_second * 1e9)
