"""Host memory that a node needs in the parts of a recipe, beside the page cache.

Weights are read memory-mapped: processes of a node share those pages, and the kernel drops them
under pressure. What is counted here stays until the part is done.
"""

from dataclasses import dataclass, fields

from hpc_llm.accounting.architecture import Architecture, parameter_count

__all__ = ["SHARD_BYTES", "HostMemory", "HostSetup", "host_memory"]

SHARD_BYTES = 5 * 10**9
"""Size of a file of weights: a rank holds one while it writes its part of a stage's weights."""
FP32 = 4
CHUNK = 8 * 4096  # float64, rows of a matrix at a time
STATES = 3 * FP32  # weight and both moments, for each trained parameter


@dataclass(frozen=True, kw_only=True)
class HostSetup:
    """How a training stage lies on its nodes."""

    width: int
    """Bytes of a weight."""
    nodes: int
    ranks_per_node: int
    zero_stage: int
    sharded: bool
    """Whether each rank writes its part of a checkpoint; otherwise the first rank writes all."""
    offload_optimizer: bool
    offload_parameters: bool


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """Bytes of one node, the one that needs most."""

    transplant: int
    """Embedding and LM head, old or new, as far as they are in memory at once, new rows before they
    are copied, and a chunk of rows in float64."""
    start: int
    """Weights of all ranks of a node before they are on their devices."""
    checkpoints: int
    """Copies of weights and optimizer states that are being written."""
    offloaded: int
    """Optimizer states and weights that ZeRO keeps on the host."""
    end: int
    """One file of weights for each rank."""
    merge: int
    """Two matrices in fp32."""

    @property
    def parts(self) -> dict[str, int]:
        """The parts that need any memory, by name."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value}


def host_memory(
    arch: Architecture, old_vocabulary: int, trained: int, setup: HostSetup
) -> HostMemory:
    """Return the host memory of a node for a model with its new vocabulary.

    `trained` parameters are trained in the stage of `setup`; the transplant starts from
    `old_vocabulary` tokens.
    """
    sizes, width, h = parameter_count(arch), setup.width, arch.hidden_size
    ranks = setup.nodes * setup.ranks_per_node
    layer = sizes.body // arch.num_layers
    own = sizes.total // ranks + layer if setup.zero_stage == 3 else sizes.total
    states = STATES * trained
    kept = states // setup.nodes * setup.offload_optimizer
    kept += width * sizes.total // setup.nodes * setup.offload_parameters
    new, whole = arch.vocab_size, old_vocabulary
    rows = whole + 2 * new + (0 if arch.tied_embeddings else max(whole, new))
    return HostMemory(
        transplant=h * (width * rows + CHUNK),
        start=setup.ranks_per_node * width * own,
        checkpoints=states // setup.nodes if setup.sharded else states,
        offloaded=kept,
        end=setup.ranks_per_node * min(SHARD_BYTES, width * trained),
        merge=2 * FP32 * max(h * arch.vocab_size, h * arch.ffn_size),
    )
