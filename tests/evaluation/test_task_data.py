"""Tasks of the project on real items, against a loop with transformers; needs the data folder."""

import json

import numpy as np
import pytest
import torch
from task_settings import of_real_items
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpc_llm.evaluation.bits_per_byte import document_nll
from hpc_llm.evaluation.tasks import read_questions
from hpc_llm.evaluation.tasks.evaluate import Place, evaluate_task
from hpc_llm.evaluation.tasks.scorer import Scorer
from hpc_llm.stages.texts import encoder, first_token

ITEMS = 40


@pytest.fixture(scope="module")
def scorer(shared):
    path = shared / "data" / "models" / "en-ru-base"
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    settings = of_real_items(shared, ["parus", "rublimp"], ITEMS)
    return Scorer(model, tokenizer, encoder(tokenizer), first_token(tokenizer), settings)


def evaluated(name, scorer, folder):
    place = Place(folder=folder, fingerprint="", stop_reason=lambda: None)
    found = evaluate_task(name, scorer, place, seed=1)
    return found, [json.loads(line) for line in (folder / f"{name}.jsonl").open()]


@torch.no_grad()
def test_parus_equals_one_forward_pass_for_each_choice(scorer, tmp_path):
    found, lines = evaluated("parus", scorer, tmp_path)
    right = []
    for question, line in zip(read_questions("parus", scorer.settings), lines, strict=True):
        scores = []
        for prompt, choice in question.requests:
            encoding = scorer.tokenizer(
                prompt + choice, add_special_tokens=False, return_offsets_mapping=True
            )
            ids = torch.tensor([[scorer.first_token, *encoding["input_ids"]]])
            logs = scorer.model(input_ids=ids).logits[0].double().log_softmax(-1)
            scores.append(
                sum(
                    float(logs[i, token])
                    for i, (token, (_, end)) in enumerate(
                        zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
                    )
                    if end > len(prompt)
                )
            )
        np.testing.assert_allclose(line["scores"], scores, atol=1e-4)
        sizes = [len(choice.strip().encode()) for _, choice in question.requests]
        assert line["bytes"] == sizes
        right.append(np.argmax(np.array(scores) / sizes) == question.gold)
    assert (found.n, found.value) == (ITEMS, pytest.approx(np.mean(right)))
    assert found.at_chance  # so small a model knows no causes


def test_minimal_pairs_equal_document_losses(scorer, tmp_path):
    found, lines = evaluated("rublimp", scorer, tmp_path)
    questions = read_questions("rublimp", scorer.settings)
    texts = [text for question in questions for text in question.choices]
    encode, first = scorer.encode, scorer.first_token
    nll = document_nll(scorer.model, encode(texts), scorer.settings, first)
    np.testing.assert_allclose([line["scores"] for line in lines], -nll.reshape(-1, 2), atol=1e-4)
    assert len({line["groups"][1] for line in lines}) > 30  # evenly spaced over the paradigms
    assert not found.at_chance  # it has seen Russian
    assert found.value > found.chance
