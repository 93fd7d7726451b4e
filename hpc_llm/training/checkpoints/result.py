"""The trained weights at the end of a stage, written by all ranks as safetensors shards.

Shards are dealt out to the ranks in turn. A partitioned parameter (ZeRO-3) is gathered on every
rank for the moment in which its owner copies it, so a rank holds its part of the model, one
parameter and at most one shard.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub.serialization import StateDictSplit

from hpc_llm.errors import UserError
from hpc_llm.rundir import check_fence, publish, temporary_beside
from hpc_llm.surgery.loading import full_shape, gathered
from hpc_llm.surgery.shards import (
    SHARD_BYTES,
    WEIGHTS,
    StoredWeights,
    split_weights,
    weight_files,
    write_index,
    write_shard,
)
from hpc_llm.training import process_group
from hpc_llm.training.checkpoints.states import full_parameters, whole_of
from hpc_llm.training.progress import Progress
from hpc_llm.training.spec import StageSpec, TrainedStage

__all__ = ["stage_result", "write_weights"]

Parameters = Mapping[str, torch.nn.Parameter]


def stage_result(spec: StageSpec, progress: Progress) -> TrainedStage:
    """Write the trained weights into `spec.result`; return them and the adapters (collective)."""
    first = spec.ranks.is_first
    write_weights(spec.result, spec.trainable.weights, spec.ranks.rank, spec.ranks.world_size)
    adapters = full_parameters(spec.trainable.adapters, first)
    return TrainedStage(
        progress, weights=StoredWeights(spec.result) if first else {}, adapters=adapters
    )


def write_weights(
    folder: Path, parameters: Parameters, rank: int, ranks: int, most_bytes: int = SHARD_BYTES
) -> None:
    """Write `parameters` into `folder` in shards of `most_bytes`, each by one rank (collective).

    Shards have temporary names until all are complete. Raises the error of a rank that cannot
    write, and `UserError` on the others.
    """
    shapes = {
        name: torch.empty(full_shape(parameter), dtype=parameter.dtype, device="meta")
        for name, parameter in parameters.items()
    }
    split = split_weights(shapes, WEIGHTS, most_bytes)
    place = Path(process_group.on_first_rank(lambda: _begin(folder, split)))
    files = list(split.filename_to_tensors)
    for begin in range(0, len(files), ranks):
        own: dict[str, torch.Tensor] = {}
        for owner, file in enumerate(files[begin : begin + ranks]):
            own |= _gather(parameters, split.filename_to_tensors[file], keep=owner == rank)
        mine = files[begin + rank] if begin + rank < len(files) else None
        _write_together(place, mine, own)
    process_group.on_first_rank(lambda: _publish(place, folder))


def _begin(folder: Path, split: StateDictSplit) -> str:
    """Make the folder in which the ranks write; return its path."""
    check_fence(folder)
    place = temporary_beside(folder / WEIGHTS)
    place.mkdir(parents=True)
    write_index(place, WEIGHTS, split)
    return str(place)


def _write_together(place: Path, file: str | None, own: dict[str, torch.Tensor]) -> None:
    """Write this rank's file, if it has one (collective: raises on every rank if one fails)."""
    failure: Exception | None = None
    try:
        if file is not None:
            write_shard(place / file, own, own.__getitem__)
    except Exception as error:  # raised below, when all ranks know
        failure = error
    (failures,) = process_group.all_sum([failure is not None])
    if failures:
        process_group.on_first_rank(lambda: shutil.rmtree(place, ignore_errors=True))
    if failure is not None:
        raise failure
    if failures:
        rule, fix = "another rank could not write its part", "see the error of that rank"
        raise UserError(str(place), None, rule, fix)


def _publish(place: Path, folder: Path) -> None:
    """Move the complete files from `place` into `folder`, in place of earlier ones."""
    new = weight_files(place, WEIGHTS)
    for path in weight_files(folder, WEIGHTS):
        if path.name not in {one.name for one in new}:
            path.unlink()
    for path in new:
        publish(path, folder / path.name)
    place.rmdir()


def _gather(parameters: Parameters, names: list[str], *, keep: bool) -> dict[str, torch.Tensor]:
    """Return CPU copies of full parameters (collective); {} on ranks that do not `keep` them."""
    found: dict[str, torch.Tensor] = {}
    for name in names:
        with gathered([parameters[name]], write=False):
            value = whole_of(parameters[name], parameters[name].detach())
            if keep:
                found[name] = value.cpu().clone().contiguous()
    return found
