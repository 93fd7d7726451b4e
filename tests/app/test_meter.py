"""evaluation.meter: source text measured during training, and a stage that ends for it."""

import json
import math

import pytest
import torch
from errors import user_error
from safetensors.torch import load_file
from tiny import TINY, hpc_llm, results, settings, stages
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpc_llm.corpus import read_texts
from hpc_llm.evaluation.segments import select
from hpc_llm.tracking.events import read_events
from hpc_llm.training.meter import Meter, Metering
from hpc_llm.training.progress import Progress

WORDS = [*stages("pretrain", "embeddings"), "stages.embeddings.steps=12", "tracking=off"]
WORDS += ["evaluation.tune_bytes=3000"]
TINY_STAGES = [word for word in TINY if "stages.lora" not in word]


def adapt(runs, *words):
    hpc_llm("adapt", *TINY_STAGES, f"runs_dir={runs}", *words)


METER = ["evaluation.meter.steps=4", "evaluation.meter.documents=6"]


def readings(folder):
    found = [e for e in read_events(folder / "events.jsonl") if e["event"] == "evaluate"]
    return {e["step"]: e["metrics"] for e in found if e.get("step") is not None}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    adapt(runs, *WORDS, *METER, "run=metered")
    return runs


def test_it_is_measured_every_few_steps_against_the_base(runs):
    folder = runs / "metered"
    found = readings(folder)
    assert list(found) == [4, 8, 12]
    base = json.loads((folder / "train/embeddings/meter.json").read_text())["base_bpb"]
    for measures in found.values():
        assert measures["forgetting/delta_bpb"] == pytest.approx(measures["bpb/source"] - base)
    assert found[12]["bpb/source"] != found[4]["bpb/source"]
    assert results(folder)["train/embeddings"]["ended_early"] is None


def test_the_last_reading_is_that_of_the_saved_weights(runs):
    """Scored by plain transformers, a document at a time."""
    folder = runs / "metered"
    model = AutoModelForCausalLM.from_pretrained(folder / "transplant").eval()
    weights = load_file(folder / "train/embeddings/weights.safetensors")
    missing = model.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    held = select(read_texts(folder / "corpus/source/tune.jsonl"), 3000).texts
    texts = [held[i * len(held) // 6] for i in range(6)] if len(held) > 6 else held
    nats = 0.0
    for text in texts:
        plain = tokenizer.encode(text, add_special_tokens=False)
        assert len(plain) < 512
        ids = torch.tensor([[tokenizer.bos_token_id, *plain]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].log_softmax(-1)
        nats -= float(logits.gather(1, ids[0, 1:, None]).sum())
    size = sum(len(text.encode()) for text in texts)
    assert readings(folder)[12]["bpb/source"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)


def test_measuring_changes_no_weight(runs):
    adapt(runs, *WORDS, "run=plain")
    files = [runs / name / "train/embeddings/weights.safetensors" for name in ("metered", "plain")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_two_ranks_with_a_partitioned_model_measure_the_same(runs):
    words = ["launch.processes=2", "zero=stage3"]
    adapt(runs, *WORDS, *METER, *words, "run=divided")
    one, two = (readings(runs / name) for name in ("metered", "divided"))
    assert one.keys() == two.keys()
    for step, measures in two.items():
        assert measures["bpb/source"] == pytest.approx(one[step]["bpb/source"], rel=1e-3)


def test_the_report_shows_the_curve(runs):
    assert "Forgetting during training" in (runs / "metered/report/index.html").read_text()


def test_a_stage_ends_where_source_text_is_too_bad(runs):
    limit = "evaluation.meter.stop_above=0.0001"
    adapt(runs, *WORDS, *METER, limit, "run=limited")
    found = results(runs / "limited")["train/embeddings"]
    assert found["steps"] == 4
    assert "stop_above" in found["ended_early"]
    assert "report" in results(runs / "limited")  # the run goes on


def test_a_stage_that_resumes_where_it_had_ended_ends_again():
    told = []
    meter = Meter(steps=4, base=1.0, stop_above=0.1, measure=lambda model: 1.2)
    metering = Metering(meter, torch.nn.Identity(), lambda done, metrics: told.append(metrics))
    assert not metering.due(Progress(step=0))
    assert metering.due(Progress(step=8))
    metering.look(Progress(step=8), again=True)
    assert metering.reason is not None
    assert told == []


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (("evaluation.meter.stop_above=0.1",), "evaluation.meter.stop_above", 0.1),
        ((*METER, "corpus.source=[]"), "evaluation.meter.steps", 4),
        ((*METER, "parallel.tensor=2"), "evaluation.meter.steps", 4),
    ],
)
def test_a_meter_that_cannot_be_is_refused(words, key, value):
    with user_error(key, value=value):
        settings("model=weights", "model.path=x", "corpus=sample", *words)
