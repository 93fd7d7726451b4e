"""Ranks that write the weights of a divided model and load them: prints a JSON list.

`python shards_tiny.py FOLDER`, where FOLDER is empty and seen by all ranks. Each rank counts the
bytes of the tensors that are alive at once.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from live_bytes import LiveBytes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import settings

from hpc_llm.distributed import detect_ranks
from hpc_llm.surgery.loading import apply_weights, build_model, load_model
from hpc_llm.surgery.shards import StoredWeights, weight_files
from hpc_llm.training import process_group
from hpc_llm.training.checkpoints import result
from hpc_llm.training.checkpoints.states import full_parameter
from hpc_llm.training.zero import division_config

SHAPE = {
    "hidden_size": 64, "num_hidden_layers": 8, "intermediate_size": 192,
    "num_attention_heads": 2, "model_type": "llama",
}  # fmt: skip
ROWS, SHARD = 257, 100_000


def everywhere(value):
    """Return the value of each rank."""
    return [json.loads(text) for text in process_group.all_texts(json.dumps(value))]


def counted(work):
    """Return what `work` returns, and the most bytes of tensors at once on each rank."""
    with LiveBytes() as live:
        done = work()
    return done, everywhere(live.peak)


def main():
    ranks = detect_ranks(os.environ)
    process_group.start(ranks, 1)
    folder, cfg = Path(sys.argv[1]), settings("experiment=example")
    zero = replace(cfg.zero, stage=3, persistence_elements=0)
    parts = division_config(cfg.train, zero, ranks)
    whole = build_model(SHAPE, ROWS, 3)
    if ranks.is_first:
        whole.save_pretrained(folder / "model")
    process_group.barrier()
    model, loading = counted(lambda: load_model(folder / "model", cfg.model, "fp32", parts))
    parameters = dict(model.named_parameters())
    written = []
    write_shard = result.write_shard

    def listed(path, *arguments):
        written.append(path.name)
        write_shard(path, *arguments)

    result.write_shard = listed
    place = folder / "stage"
    for size in (10**9, SHARD):  # one file first: the shards replace it
        written.clear()
        _, writing = counted(
            lambda size=size: result.write_weights(
                place, parameters, ranks.rank, ranks.world_size, size
            )
        )
    result.write_shard = write_shard
    by = everywhere(written)
    stored = StoredWeights(place)
    same = all(torch.equal(stored[name], value) for name, value in whole.named_parameters())
    other = build_model(SHAPE, ROWS, 4, parts)
    _, applying = counted(lambda: apply_weights(other, [place]))
    back = all(
        torch.equal(full_parameter(value), stored[name]) for name, value in other.named_parameters()
    )
    sizes = [p.numel() * 4 for p in whole.parameters()]
    found = {
        "model": sum(sizes),
        "layer": 4 * sum(p.numel() for p in whole.model.layers[0].parameters()),
        "file": (folder / "model/model.safetensors").stat().st_size,
        "loading": loading,
        "writing": writing,
        "applying": applying,
        "by": by,
        "same": same,
        "back": everywhere(back),
        "shards": len(weight_files(place, "weights")) - 1,
        "left": sorted(path.name for path in place.iterdir()),
    }
    if ranks.is_first:
        print(json.dumps([found]))
    process_group.end()


if __name__ == "__main__":
    main()
