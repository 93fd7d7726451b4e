"""Ranks that evaluate a tiny adapted model together: prints a JSON list.

`python ranks_tiny.py JSON`: `folder` holds `model/`, `adapter/` and a task (see
`test_evaluation_ranks.py`), results go to `out`. With `partition` ZeRO-3 partitions the model;
`stop` is the number of rounds of the task after which a stop is requested on the last rank.
"""

import json
import os
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from hpc_llm.distributed import detect_ranks
from hpc_llm.errors import RankFailed, Stopped, UserError, exit_code
from hpc_llm.evaluation.bits_per_byte import document_scoring, measure_bpb_of_each, score
from hpc_llm.evaluation.dealing import dealt
from hpc_llm.evaluation.lora_scale import scaled
from hpc_llm.evaluation.measures import save_losses
from hpc_llm.evaluation.samples import continue_texts
from hpc_llm.evaluation.tasks.evaluate import Place, evaluate_task
from hpc_llm.evaluation.tasks.scorer import Scorer
from hpc_llm.rundir import write_json
from hpc_llm.settings import EvaluationSettings
from hpc_llm.surgery.loading import load_model, load_tokenizer
from hpc_llm.surgery.merge import attach_adapter
from hpc_llm.training import process_group
from hpc_llm.training.zero_inference import gathered_by_layer, inference_division

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import settings

FIRST = 1  # BOS
PHIS = (0.0, 0.5, 1.0, 1.25)
SMALL = {"window": 24, "stride": 16, "batch_tokens": 72, "test_bytes": 1, "tune_bytes": 1}
NOTHING_KEPT = {  # no parameter outlives the forward pass of its layer
    "stage3_param_persistence_threshold": 0,
    "stage3_max_live_parameters": 0,
    "stage3_max_reuse_distance": 0,
    "stage3_prefetch_bucket_size": 0,
}


class Gathered:
    """The most elements of parameters that this rank holds in a forward pass, shares included."""

    def __init__(self, model):
        self.model, self.peak = model, 0
        for module in model.modules():
            module.register_forward_pre_hook(self._look)

    def _look(self, *_):
        whole = sum(p.numel() for p in self.model.parameters())
        shares = sum(p.ds_tensor.numel() for p in self.model.parameters() if hasattr(p, "ds_id"))
        self.peak = max(self.peak, whole + shares)


def evaluate(model, tokenizer, texts, where):
    """Write the losses, and return what the ranks found, without the task."""

    def encode(lines):
        return tokenizer(lines, add_special_tokens=False)["input_ids"] if lines else []

    chosen = EvaluationSettings(**SMALL, tasks=["mine"], task_folder=str(where["folder"]))
    losses = measure_bpb_of_each(model, encode, texts, chosen, FIRST, 0)
    grid = [
        document_scoring(model, encode(own), chosen, FIRST, partial(scaled, model, phi))
        for phi in PHIS
        for own in texts.values()
    ]
    curve = [float(nll.sum()) for nll in score(model, grid, chosen.batch_tokens)]
    if where["rank"] == 0:
        save_losses(where["out"] / "losses.npz", losses)
    return Scorer(model, tokenizer, encode, FIRST, chosen), {
        "bpb": {name: loss.value for name, loss in losses.items()},
        "curve": curve,
    }


def samples(model, tokenizer, texts):
    """Return continuations, of which one ends before the others."""
    prompts = [" ".join(text.split()[:3]) for text in texts["target"][:3]]
    return continue_texts(model, tokenizer, prompts, 12)


def task(scorer, where):
    """Evaluate the task; return whether a stop ended it."""
    left = iter([None] * where["stop"] + ["stop"] * 99)
    last = where["rank"] == where["ranks"] - 1
    reason = (lambda: next(left)) if last else (lambda: None)
    place = Place(folder=where["out"] / "point", fingerprint="a", stop_reason=reason)
    try:
        evaluate_task("mine", scorer, place, 1)
    except Stopped:
        return True
    return False


def failure():
    """Let item 1 fail, on rank 1 of several; return what each rank raises."""

    def compute(item):
        if item == 1:
            raise UserError("item", item, "fails")
        return item

    try:
        dealt(range(5), compute)
    except (UserError, RankFailed) as error:
        found = [type(error).__name__, exit_code(error)]
    return process_group.on_every_rank(lambda: found)


@contextmanager
def layers_of(model, division):
    """Watch what is held of a model; gather its layers if it is partitioned."""
    with nullcontext() if division is None else gathered_by_layer(model, division):
        yield Gathered(model)


def main():
    place = detect_ranks(os.environ)
    process_group.start(place, 1)
    given = json.loads(sys.argv[1])
    folder, out = Path(given["folder"]), Path(given["out"])
    where = {"stop": 99, "partition": False, "precision": "fp32"} | given
    where |= {"folder": folder, "out": out, "rank": place.rank, "ranks": place.world_size}
    cfg = settings("experiment=example")
    division = None
    if where["partition"]:
        zero = replace(cfg.zero, stage=1, extra={})
        train = replace(cfg.train, precision=where["precision"])
        division = inference_division(train, zero, place)
        division["zero_optimization"] |= NOTHING_KEPT
    tokenizer = load_tokenizer(folder / "model", cfg.model)
    model = load_model(folder / "model", cfg.model, where["precision"], division)
    adapted = attach_adapter(model, folder / "adapter")
    texts = json.loads((folder / "texts.json").read_text())
    with layers_of(adapted, division) as held:
        scorer, found = evaluate(adapted, tokenizer, texts, where)
        found["stopped"] = task(scorer, where)
        peak = max(process_group.all_values(held.peak))
    model = load_model(folder / "model", cfg.model, where["precision"], division)
    with layers_of(model, division):
        found["samples"] = samples(model, tokenizer, texts)
    if division is not None:
        found["peak"] = peak
    failed = failure()
    if place.rank == 0:
        write_json(out / "found.json", found)
        print(json.dumps([found | {"failure": failed}]))
    process_group.end()


if __name__ == "__main__":
    main()
