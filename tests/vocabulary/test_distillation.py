"""Token distillation: the update against torch's, contexts, errors on held-out text, resuming."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from errors import user_error
from safetensors import safe_open
from tiny import settings

from hpc_llm.corpus.documents import read_documents
from hpc_llm.surgery.outline import NotStreamed
from hpc_llm.tokenizer.text import text_encoder
from hpc_llm.vocabulary import distillation
from hpc_llm.vocabulary.anchors import match_rows
from hpc_llm.vocabulary.contexts import Spelling, sample_contexts
from hpc_llm.vocabulary.distillation import RowAdam
from hpc_llm.vocabulary.initial import initialisation


def test_rows_that_are_always_updated_follow_torchs_adam():
    rows = torch.randn(6, 4)
    reference = rows.clone().requires_grad_()
    optimizer = torch.optim.Adam([reference], lr=0.1, eps=1e-12)
    adam = RowAdam(rows)
    for _ in range(5):
        gradient = torch.randn(6, 4)
        reference.grad = gradient.clone()
        optimizer.step()
        for places in ([4, 0, 2], [1, 3, 5]):  # in two parts: rows do not see each other
            adam.update(torch.tensor(places), gradient[places], 0.1)
    torch.testing.assert_close(rows, reference.detach())


def test_only_rows_with_a_gradient_move():
    rows = torch.randn(3, 2)
    before = rows.clone()
    RowAdam(rows).update(torch.tensor([1]), torch.ones(1, 2), 0.5)
    assert torch.equal(rows[[0, 2]], before[[0, 2]])
    torch.testing.assert_close(rows[1], before[1] - 0.5)


@pytest.fixture
def matched(stories, llama32k, shared):
    """The stories model with the vocabulary of Llama-2, and English text it has not seen."""
    model, old = stories
    plan = settings(
        "transplant=distilled", "transplant.distilled.steps=150", "transplant.distilled.batch=16"
    ).transplant
    encode = text_encoder(llama32k)
    file = shared / "data/en/en_stories_books.jsonl.gz"
    texts = list(islice(read_documents(str(file), settings().corpus), 30))
    documents = [np.array([1, *ids, 2]) for ids in encode(texts)]
    tokens, _ = match_rows(old, llama32k, plan, seed=1)
    return replace(tokens, model=model, documents=documents)


def test_contexts_are_the_same_text_in_both_vocabularies(matched, stories, llama32k):
    contexts = sample_contexts(matched, 24, 2)
    new = set(matched.ids)
    assert all(new & set(ids.tolist()) and len(ids) <= 25 for ids in contexts)
    batch = Spelling(matched).batch(contexts[:8])
    old = stories[1]
    for row, ids in enumerate(contexts[:8]):
        for place in range(1, len(ids)):
            end = int(batch.ends[row, place])
            assert llama32k.decode(ids[1 : place + 1]) == old.decode(batch.old[row, 1 : end + 1])
    assert batch.compared.sum() == sum(len(ids) - 1 for ids in contexts[:8])


def test_hidden_states_come_closer_on_contexts_it_was_not_trained_on(matched):
    """Only new rows are trainable, and the model is as before."""
    model = matched.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    old = model.get_input_embeddings().weight.detach().clone()
    rows = initialisation("distilled")(old, matched)
    report = matched.report["distillation"]
    print(report)
    assert report["held_out"] > 5
    # measured: 0.591 and 0.594 (two seeds), 0.601 (another run)
    assert report["error"] < 0.65 * report["error_before"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    mean = initialisation("mean")(old, matched)
    moved = (rows != mean).any(1)
    assert moved.sum() == matched.report["sources"]["distilled"]


def test_a_killed_training_resumes_bit_for_bit(matched, tmp_path, monkeypatch):
    old = matched.model.get_input_embeddings().weight.detach().clone()
    plan = replace(matched.settings.distilled, steps=9, save_steps=4)
    whole = replace(matched, settings=replace(matched.settings, distilled=plan))
    wanted = initialisation("distilled")(old, whole)
    state = tmp_path / "state"
    killed = replace(whole, state=state)
    update = RowAdam.update
    updates = []

    def dies(self, *arguments):
        updates.append(arguments)
        if len(updates) == 7:
            raise KeyboardInterrupt
        update(self, *arguments)

    monkeypatch.setattr(distillation.RowAdam, "update", dies)
    with pytest.raises(KeyboardInterrupt):
        initialisation("distilled")(old, killed)
    monkeypatch.setattr(distillation.RowAdam, "update", update)
    with safe_open(state, "pt") as file:
        assert json.loads(file.metadata()["step"]) == 4
    assert torch.equal(initialisation("distilled")(old, killed), wanted)
    other = replace(killed, seed=2)  # another training does not take up this state
    assert not torch.equal(initialisation("distilled")(old, other), wanted)


def test_what_it_needs_is_refused_or_loaded(matched):
    old = matched.model.get_input_embeddings().weight.detach().clone()
    plan = matched.settings
    deep = replace(plan, distilled=replace(plan.distilled, layer=6))
    with user_error("transplant.distilled.layer", "5 layers", value=6):
        initialisation("distilled")(old, replace(matched, settings=deep))
    with user_error("transplant.input", "text", value="distilled"):
        initialisation("distilled")(old, replace(matched, documents=[]))
    matched.model.to("meta")
    with pytest.raises(NotStreamed):
        initialisation("distilled")(old, matched)


def test_the_head_gets_its_own_initialisation(matched):
    old = torch.randn(512, 8)
    plan = replace(matched.settings, distilled=replace(matched.settings.distilled, output="first"))
    head = replace(matched, inputs=torch.zeros(1), settings=plan)
    found = initialisation("distilled")(old, head)
    assert head.report["sources"] == {"first": len(head.ids)}
    assert torch.equal(found, initialisation("first")(old, head))
