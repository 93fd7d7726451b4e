"""All initialisations: the same rules for each file of the folder, and a plug-in."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from errors import user_error
from live_bytes import LiveBytes
from tiny import settings
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm import config
from hpc_llm.vocabulary.anchors import match_rows
from hpc_llm.vocabulary.donors import Donor
from hpc_llm.vocabulary.initial import initial_names, initialisation
from hpc_llm.vocabulary.rows import NewTokens, TrainingText, mean_of_pieces
from hpc_llm.vocabulary.sides import new_rows
from hpc_llm.vocabulary.statistics import ROWS
from hpc_llm.vocabulary.transplant import transplant

INPUTS = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
DONOR = Donor(
    np.random.default_rng(2).normal(size=(5, 2)),
    np.array([5, 0, 7, 1, 3]),
    np.array([True, True, True, False, True]),
)
OLD = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
DOCUMENTS = [np.array([0, 1, 2, 4, 1])] * 3
FEW_STEPS = ("transplant.anchors.drop_norm_quantile=0", "transplant.distilled.steps=3")
TIED = ("tie", True)  # copies what is the same


def new_tokens(**changes):
    values = {
        "ids": [1, 3, 4], "pieces": [[2, 5, 5], [], [6]], "anchors": [(0, 3), (2, 0)], "size": 5,
        "seed": 9, "settings": settings(*FEW_STEPS).transplant, "inputs": INPUTS,
        "vectors": lambda largest: DONOR, "model": untied(4, 7), "documents": DOCUMENTS,
    }  # fmt: skip
    return NewTokens(**values | changes)


def plan_of(name, tied):
    """Return the settings of an initialisation; one that copies the input side is for the head."""
    plan = settings(*FEW_STEPS[1:]).transplant
    return replace(plan, input="mean" if name == "tie" and not tied else name, output=name)


def text_of(tokenizer):
    """Return a text of all tokens of a vocabulary, and random vectors as a donor gives them."""

    def vectors(largest):
        random = np.random.default_rng(0)
        size = len(tokenizer)
        known = random.random(size) < 0.9
        found = random.normal(size=(size, min(8, largest)))
        return Donor(found, random.integers(0, 50, size), known)

    return TrainingText(vectors=vectors, documents=[np.arange(len(tokenizer))])


def untied(width=16, vocabulary=512):
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 24, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "vocab_size": vocabulary}
    return LlamaForCausalLM(LlamaConfig(tie_word_embeddings=False, **sizes))


@pytest.mark.parametrize("name", initial_names())
@pytest.mark.parametrize("tied", [True, False])
def test_the_same_vocabulary_gives_the_same_model(stories, name, tied):
    model, tokenizer = stories
    model = model if tied else untied()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    chosen = plan_of(name, tied)
    _, new = transplant(model, tokenizer, tokenizer, chosen, 1, text_of(tokenizer))
    assert new == []
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "tied"), [(n, t) for n in initial_names() for t in (True, False) if (n, t) != TIED]
)
def test_no_row_is_nan_or_zero(stories, llama32k, name, tied):
    model, old = stories
    model = model if tied else untied()
    transplant(model, old, llama32k, plan_of(name, tied), 1, text_of(llama32k))
    for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert weight.shape[0] == 32_000
        assert weight.isfinite().all()
        assert (weight.abs().sum(1) > 0).all()


@pytest.mark.parametrize("name", initial_names())
def test_rows_depend_on_the_arguments_only(name):
    old = OLD.clone()
    rows = initialisation(name)(old, new_tokens())
    assert rows.shape == (3, 4)
    assert torch.equal(rows, initialisation(name)(old, new_tokens()))
    assert torch.equal(old, OLD)
    none = new_tokens(ids=[], pieces=[], size=2)
    assert initialisation(name)(old, none).shape == (0, 4)


def test_mean_is_the_mean_of_pieces_or_of_all_rows():
    expected = torch.stack([OLD[[2, 5, 5]].mean(0), OLD.mean(0), OLD[6]])
    torch.testing.assert_close(initialisation("mean")(OLD, new_tokens()), expected)


def test_a_drawn_row_depends_on_the_text_of_its_token_and_the_seed():
    """In two vocabularies with other ids; the moments are those of the old rows."""
    texts = [str(i).encode() for i in range(20_000)]

    def drawn(order, **changes):
        found = [texts[i] for i in order]
        tokens = new_tokens(
            ids=list(range(len(order))), pieces=[[]] * len(order), anchors=[], size=len(order),
            surfaces=found, **changes,
        )  # fmt: skip
        return initialisation("random")(OLD, tokens)

    rows, few = drawn(range(20_000)), drawn([9, 4000, 3])
    assert torch.equal(few, rows[[9, 4000, 3]])
    assert not torch.isclose(few, drawn([9, 4000, 3], seed=10)).any()
    torch.testing.assert_close(rows.mean(0), OLD.mean(0), rtol=0, atol=0.03)
    torch.testing.assert_close(rows.std(0), OLD.std(0), rtol=0.03, atol=0)
    assert (rows.T.corrcoef() - torch.eye(4)).abs().max() < 0.03
    assert torch.equal(initialisation("random")(OLD, new_tokens())[2], OLD[6])


def test_anchors_are_copied_in_the_precision_of_the_model():
    rows = new_rows(OLD.bfloat16(), new_tokens(), mean_of_pieces)
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows[[0, 2]], OLD.bfloat16()[[3, 0]])


def test_rows_equal_a_sparse_matrix_over_the_whole_vocabulary(stories, llama32k):
    """The reference multiplies one T (vocab_n, vocab_o) for anchors and new tokens alike."""
    model, old = stories
    tokens, counts = match_rows(old, llama32k, settings().transplant, seed=1)
    sources = {new: [source] for new, source in tokens.anchors}
    sources |= dict(zip(tokens.ids, tokens.pieces, strict=True))
    assert len(sources) == counts.rows == tokens.size
    pairs = torch.tensor([(i, j) for i in range(tokens.size) for j in sources[i]]).T
    weights = torch.tensor([1 / len(sources[i]) for i in range(tokens.size) for _ in sources[i]])
    weight = model.get_input_embeddings().weight.detach()
    size = (tokens.size, len(weight))
    expected = torch.sparse.mm(torch.sparse_coo_tensor(pairs, weights, size).coalesce(), weight)
    mean = weight.double().mean(0).float()
    expected[[i for i in range(tokens.size) if not sources[i]]] = mean
    assert torch.equal(new_rows(weight, tokens, initialisation("mean")), expected)


def test_no_initialisation_needs_a_matrix_in_fp32(stories, llama32k):
    """Beside the result in bf16, the new rows in bf16 and chunks of `ROWS` rows in float64."""
    model, old = stories
    weight = model.get_input_embeddings().weight.detach().bfloat16()
    plan = settings(*FEW_STEPS).transplant
    tokens, _ = match_rows(old, llama32k, plan, seed=1)
    inputs = torch.zeros(tokens.size, 64, dtype=torch.bfloat16)
    text = text_of(llama32k)
    tokens = replace(tokens, inputs=inputs, vectors=text.vectors, documents=text.documents)
    most = 2 * 2 * inputs.numel() + 2 * 8 * ROWS * 64
    for name in initial_names():
        with LiveBytes() as live:
            found = new_rows(weight, replace(tokens, report={}), initialisation(name))
        assert found.dtype == torch.bfloat16
        assert live.peak < most, name


@pytest.mark.parametrize("side", ["input", "output"])
def test_an_unknown_initialisation_is_refused_before_anything_runs(side):
    composed = config.compose([f"transplant.{side}=meen"])
    with user_error(f"transplant.{side}", *initial_names(), value="meen"):
        config.typed(composed)


def test_listing_names_imports_nothing_heavy():
    code = (
        "import sys; from hpc_llm.vocabulary.initial import initial_names; "
        "assert {'mean', 'random'} <= set(initial_names()); "
        "assert not {'torch', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_file_of_a_plugin_folder_adds_one(stories, llama32k, tmp_path, monkeypatch):
    (tmp_path / "initial").mkdir()
    (tmp_path / "initial" / "halves.py").write_text(
        "import torch\n\ndef rows(old, tokens):\n"
        "    return torch.full((len(tokens.ids), old.shape[1]), 0.5)\n"
    )
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path))
    names = ["transplant.input=halves", "transplant.output=halves"]
    plan = config.typed(config.compose(names)).transplant
    model, old = stories
    _, new = transplant(model, old, llama32k, plan, seed=1)
    assert (model.get_input_embeddings().weight[new] == 0.5).all()
