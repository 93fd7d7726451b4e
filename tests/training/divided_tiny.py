"""Ranks that build tiny models divided among them (ZeRO-3), beside whole ones: prints a JSON list.

`python divided_tiny.py FOLDER`, where FOLDER is empty and seen by all ranks.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.integrations import is_deepspeed_zero3_enabled

from hpc_llm.accounting import Architecture, stage_method
from hpc_llm.distributed import detect_ranks
from hpc_llm.errors import UserError
from hpc_llm.surgery.loading import apply_weights, build_model, end_division, load_model
from hpc_llm.surgery.merge import attach_adapter, merge_adapter
from hpc_llm.surgery.trainable import make_trainable
from hpc_llm.training import process_group
from hpc_llm.training.agreement import check_same
from hpc_llm.training.checkpoints.states import full_parameter
from hpc_llm.training.counting import verify_flops
from hpc_llm.training.data.batches import BatchPlan
from hpc_llm.training.zero import division_config

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import settings, stage_of

PLAN = BatchPlan(sequence_length=32, rows=4, micro_rows=2, accumulation=2, data_parallel=1)
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2}
FAMILIES = {
    "llama": {"intermediate_size": 24, "num_attention_heads": 2},
    "qwen2": {"intermediate_size": 24, "num_attention_heads": 2, "tie_word_embeddings": True,
              "num_key_value_heads": 1},
    "gpt2": {"n_head": 2, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 1},
    "mixtral": {"intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1,
                "num_local_experts": 2},
}  # fmt: skip


def same(whole, divided):
    """Tell whether all parameters have equal bits, and every rank holds a part of each only."""
    parts = dict(divided.named_parameters())
    assert list(parts) == [name for name, _ in whole.named_parameters()]
    for name, parameter in whole.named_parameters():
        part = parts[name]
        share = -(-parameter.numel() // torch.distributed.get_world_size())
        if part.numel() or part.ds_tensor.numel() != share or part.dtype != parameter.dtype:
            return f"{name} is not divided"
        if not torch.equal(full_parameter(part), parameter.detach()):
            return f"{name} differs"
    return True


def change(model, folder):
    """Leave in `folder` what a stage leaves: weights by name, and an adapter."""
    trainable = make_trainable(model, stage_of("lora", rank=2), False, seed=1)
    for value in trainable.adapters.values():
        torch.nn.init.normal_(value, std=0.1)
    save_file(
        {n: p.detach() + 1 for n, p in trainable.embeddings.items()}, folder / "weights.safetensors"
    )
    trainable.model.save_pretrained(folder / "adapter", save_embedding_layers=False)


def compare(family, precision, folder):
    """Build and load a model whole and divided; return what is not as it should be."""
    cfg = settings("experiment=example")
    train = replace(cfg.train, precision=precision)
    zero = replace(cfg.zero, stage=3, persistence_elements=0)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    parts = division_config(train, zero, detect_ranks(os.environ))
    architecture = {"model_type": family, **SHAPE, **FAMILIES[family]}
    whole = build_model(architecture, 65, 3).to(dtype)  # 65 rows: not divisible by two ranks
    found = {"built": same(whole, build_model(architecture, 65, 3, parts))}
    first = torch.distributed.get_rank() == 0
    if first:
        whole.save_pretrained(folder / "model")
    process_group.barrier()
    divided = load_model(folder / "model", cfg.model, precision, parts)
    found["loaded"] = same(load_model(folder / "model", cfg.model, precision), divided)
    found["tied"] = divided.get_output_embeddings().weight is divided.get_input_embeddings().weight
    if first:
        change(load_model(folder / "model", cfg.model, precision), folder)
    process_group.barrier()
    for name in ("whole", "divided"):
        model = {"whole": whole, "divided": divided}[name]
        apply_weights(model, [folder])
        merged = merge_adapter(attach_adapter(model, folder / "adapter"), 1.0)
        whole, divided = (merged, divided) if name == "whole" else (whole, merged)
    found["merged"] = same(whole, divided)
    for name in ("full", "embeddings", "head", "lora"):
        model = load_model(folder / "model", cfg.model, precision, parts)
        stage = stage_of(name)
        trainable = make_trainable(model.train(), stage, False, seed=1)
        shape = Architecture.from_config(model.config.to_dict())
        verify_flops(trainable.model, shape, stage_method(stage, recompute=False), PLAN)
    found["dividing"] = is_deepspeed_zero3_enabled()
    end_division()
    found["linear"] = torch.nn.functional.linear.__name__
    return found


def disagreement():
    """Let the last rank hold another number; return the error, and that of a divided tensor."""
    rank = torch.distributed.get_rank()
    rows = torch.arange(30.0).reshape(10, 3)
    check_same({"rows": rows}, rank)
    if rank == torch.distributed.get_world_size() - 1:
        rows[9, 2] = torch.nextafter(rows[9, 2], torch.tensor(0.0))
    try:
        check_same({"others": torch.zeros(3), "rows": rows}, rank)
    except UserError as error:
        return str(error)
    return None


def main():
    process_group.start(detect_ranks(os.environ), 1)
    folder, found = Path(sys.argv[1]), {}
    for number, family in enumerate(FAMILIES):
        precision = ("fp32", "bf16")[number % 2]
        place = folder / family
        place.mkdir(exist_ok=True)
        found[family] = compare(family, precision, place)
    found["disagreement"] = disagreement()
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps([found]))
    process_group.end()


if __name__ == "__main__":
    main()
