"""One rank that trains tiny models one after the other: `python train_tiny.py TASKS`.

TASKS is a JSON list of {"folder", "zero", "method", "micro", "stop_at", "precision", "poison",
"guards", "minutes", "fault", "leave_out", "tokens", "flops", "compile", "tied", "rows", "steps",
"checkpoint", "fingerprint", "settings", "width", "train", "name", "text", "branch",
"branch_steps", "schedule", "rate", "parallel", "shape", "family", "keep"};
`fault` is [forward pass, nan_loss | nan_gradient | slow, how often], `leave_out` a batch that is
not in the text, `rows` those that learn by new_rows, `branch` [stage, step, its stage folder].
Prints a JSON list with the losses and the hash of each; with `stop_at` a task is asked to stop
when it is about to make that step, saves, and its entry is null; `poison` puts NaN into a weight;
`parallel` are the sizes [sequence, tensor], `keep` is a file for the trained weights.
"""

import hashlib
import json
import os
import sys
import time
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from documents import Documents
from safetensors.torch import save_file
from transformers import LlamaConfig
from transformers.utils import ModelOutput

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import settings, stage_of

from hpc_llm.distributed import detect_ranks, layout_of, set_up_console
from hpc_llm.errors import Diverged, FirstRankFailed, Stopped, UserError
from hpc_llm.settings import RampSettings
from hpc_llm.surgery.loading import DTYPES, build_model, gathered
from hpc_llm.surgery.trainable import make_trainable
from hpc_llm.training import process_group
from hpc_llm.training.checkpoints.branches import branch_path, keep_branches
from hpc_llm.training.checkpoints.states import full_parameter
from hpc_llm.training.data.batches import BatchPlan, plan_batches
from hpc_llm.training.data.mixture import MixedReader
from hpc_llm.training.data.packing import RowKey
from hpc_llm.training.data.shards import PackedReader
from hpc_llm.training.loop import train
from hpc_llm.training.schedules import StageLength
from hpc_llm.training.spec import Branch, Hooks, StageSpec
from hpc_llm.training.zero import division_config

STEPS = 6


def text(seed):
    """Return some random documents."""
    drawn = np.random.default_rng(seed)
    return Documents([drawn.integers(3, 64, n) for n in drawn.integers(2, 40, 60)])


def reader_of(settings, plan, seed):
    """Return the reader of a text, and of another one where some is replayed."""
    unit = plan.rows if settings.batching == "grouped" else None
    key = RowKey(32, 1, unit)
    readers = [PackedReader(d, int(d.sizes.sum()), key) for d in (text(seed), text(6))]
    if not settings.replay:
        return readers[0]
    return MixedReader(readers, [1 - settings.replay, settings.replay], 1)


def break_down(model, call, kind, times=1):
    """Let forward pass number `call` of the body, and the next ones, go wrong."""
    calls = [0]

    def hook(module, arguments, output):
        if not isinstance(output, ModelOutput):  # the model is only asked about its head
            return output
        calls[0] += 1
        if call < calls[0] <= call + times:
            if kind == "slow":  # the last rank alone
                last = os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1)
                time.sleep(0.2 * last)
            elif kind == "nan_loss":
                output.last_hidden_state = output.last_hidden_state * float("nan")
            else:
                output.last_hidden_state.register_hook(lambda gradient: gradient * float("nan"))
        return output

    model.model.register_forward_hook(hook)


@dataclass(frozen=True)
class Shortened:
    """A batch plan of a text that lacks one batch."""

    plan: BatchPlan
    without: int

    def indices(self, batch, share):
        return self.plan.indices(batch + (batch >= self.without), share)

    def __getattr__(self, name):
        return getattr(self.plan, name)


def branch_of(task):
    """Return the checkpoint that a task starts from, if it branches from another one."""
    if "branch" not in task:
        return None
    stage, step, folder = task["branch"]
    path = branch_path(Path(folder), step)
    return Branch(stage=stage, step=step, path=path, fingerprint="x")


def build(task):
    """Return the spec that `task` describes."""
    cfg = settings("experiment=example")
    shared = replace(
        cfg.train, sequence_length=32, batch_tokens=256, micro_batch_tokens=task.get("micro"),
        log_steps=100 if task.get("poison") else 1,
        precision=task.get("precision", "fp32"), weight_decay=0.1,
        compile=task.get("compile", False),
        **{
            name: RampSettings(**value) if isinstance(value, dict) else value
            for name, value in task.get("train", {}).items()
        },
    )  # fmt: skip
    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, **task.get("shape", {})}
    architecture = LlamaConfig(
        hidden_size=task.get("width", 16), intermediate_size=24, num_hidden_layers=2,
        vocab_size=64, tie_word_embeddings=task.get("tied", False), **heads,
    )  # fmt: skip
    ranks = detect_ranks(os.environ)
    process_group.start(ranks, 1)
    zero = replace(cfg.zero, stage=task["zero"], **task.get("zero_settings", {}))
    divided = division_config(shared, zero, ranks)
    sizes = {**architecture.to_dict(), "model_type": task.get("family", "llama")}
    model = build_model(sizes, 64, 0, divided).to(DTYPES[shared.precision])
    if task.get("poison"):
        with gathered([model.lm_head.weight]):
            model.lm_head.weight[0] = float("nan")
    if task.get("fault"):
        break_down(model, *task["fault"])
    small = {"rank": 4} if task["method"] == "lora" else {}
    stage = stage_of(task["method"], **small, **task.get("stage", {}))
    layout = layout_of(ranks.world_size, *task.get("parallel", (1, 1)))
    plan = plan_batches(shared, layout.data, 32)
    branch = branch_of(task)
    if branch:
        state = json.loads((branch.path / "state.json").read_text())
        before = state["data"].get("batches_before", 0) + state["progress"]["batch"]
        plan = replace(plan, rows_before=state["data"]["next_row"], batches_before=before)
    return StageSpec(
        name=task.get("name", task["method"]),
        trainable=make_trainable(model, stage, False, 1, task.get("rows", [])),
        reader=reader_of(shared, plan, task.get("text", 5)),
        plan=plan if task.get("leave_out") is None else Shortened(plan, task["leave_out"]),
        steps=STEPS, peak_rate=task.get("rate", 0.01),
        length=StageLength(
            steps=task.get("steps", STEPS), tokens=task.get("tokens"), flops=task.get("flops")
        ),
        stage=stage, train=shared, zero=zero,
        schedule=replace(cfg.schedule, **task.get("schedule", {})),
        guards=replace(cfg.guards, **task.get("guards", {})),
        checkpoint=replace(
            cfg.checkpoint, minutes=task.get("minutes", 1e-9 if task.get("poison") else 10),
            **task.get("checkpoint", {}),
        ),
        ranks=ranks, layout=layout, seed=1, folder=Path(task["folder"]),
        result=Path(task.get("result") or Path(task["folder"]) / "result"),
        fingerprint=task.get("fingerprint", "x"), settings=task.get("settings", {}),
        branch=branch, branch_steps=task.get("branch_steps", ()),
    )  # fmt: skip


def count_gathers():
    """Return the bytes that DeepSpeed gathers over all ranks, and inside nodes, as they grow."""
    from deepspeed.comm import comm

    gathered, backend = [0, 0], comm.cdb
    gather = getattr(backend.all_gather_function, "uncounted", backend.all_gather_function)

    def counted(output_tensor, group=None, **options):
        inside = torch.distributed.get_world_size(group) < torch.distributed.get_world_size()
        gathered[inside] += output_tensor.numel() * output_tensor.element_size()
        return gather(output_tensor=output_tensor, group=group, **options)

    counted.uncounted, backend.all_gather_function = gather, counted
    return gathered


def result(task):
    """Train one task; return its losses and the hash of its weights, or None when stopped."""
    spec = build(task)
    before = {name: full_parameter(p) for name, p in spec.trainable.embeddings.items()}
    losses, rates, seen, troubles, asked, saving, scales = [], [], [], [], [0], [], []
    named, slowest, unsaved, gathered, gathers = [], [], [], count_gathers(), []

    def stop_reason():
        asked[0] += 1
        return "asked" if asked[0] == task.get("stop_at", 0) else None

    hooks = Hooks(
        log=lambda progress, metrics, records: (
            losses.append(metrics.get("train/loss")),
            seen.extend(map(astuple, records)),
            rates.append(metrics["train/learning_rate"]),
            saving.append({k: v for k, v in metrics.items() if "checkpoint" in k}),
            slowest.append(metrics.get("perf/slowest_rank")),
            gathers.append(list(gathered)),
            scales.append([metrics.get(f"train/{k}") for k in ("loss_scale", "skipped_steps")]),
        ),
        anomaly=lambda anomaly, record: troubles.append(asdict(anomaly)),
        unsaved=lambda progress: unsaved.append(progress.step),
        straggling=lambda names, step: named.append([step, names]),
        resumed=lambda progress: None,
        step_flops=lambda tokens, squares: tokens,
        stop_reason=stop_reason,
    )
    try:
        trained = train(spec, hooks)
    except Stopped:
        return None
    except (Diverged, UserError, OSError, FirstRankFailed) as error:
        return {"error": str(error), "troubles": troubles, "unsaved": unsaved}
    if spec.ranks.is_first:
        keep_branches(spec.folder.parent, spec.branch_steps)
    process_group.barrier()  # the next task may branch from it
    if not spec.ranks.is_first:
        return {}
    if "keep" in task:
        save_file({**trained.weights}, task["keep"])
    digest = hashlib.sha256()
    for name, value in sorted({**trained.weights, **trained.adapters}.items()):
        digest.update(name.encode())
        digest.update(value.float().numpy().tobytes())
    return {
        "losses": losses, "hash": digest.hexdigest(), "records": seen, "troubles": troubles,
        "rates": rates, "saving": saving, "tokens": trained.progress.tokens, "scales": scales,
        "named": named, "slowest": slowest, "unsaved": unsaved,
        "gathers": gathers,
        "moved": {n: moved_rows(trained.weights[n], weight) for n, weight in before.items()},
    }  # fmt: skip


def moved_rows(after, before):
    """Return the rows of a matrix that have other bits."""
    return (after != before).any(1).nonzero()[:, 0].tolist()


if __name__ == "__main__":
    set_up_console(detect_ranks(os.environ))
    results = [result(task) for task in json.loads(sys.argv[1])]
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(results))
    process_group.end()
