"""All initialisations: the same rules for each file of the folder, and a plug-in."""

import subprocess
import sys

import pytest
import torch
from errors import user_error
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm import config
from hpc_llm.settings import TransplantSettings
from hpc_llm.vocabulary.anchors import match_rows
from hpc_llm.vocabulary.initial import initial_names, initialisation
from hpc_llm.vocabulary.rows import NewTokens, mean_of_pieces
from hpc_llm.vocabulary.transplant import new_rows, transplant

OLD = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
TOKENS = NewTokens(
    ids=[1, 3, 4], pieces=[[2, 5, 5], [], [6]], anchors=[(0, 3), (2, 0)], size=5, seed=9
)


def untied():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    config = LlamaConfig(num_attention_heads=2, vocab_size=512, tie_word_embeddings=False, **sizes)
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("name", initial_names())
@pytest.mark.parametrize("tied", [True, False])
def test_the_same_vocabulary_gives_the_same_model(stories, name, tied):
    model, tokenizer = stories
    model = model if tied else untied()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    settings = TransplantSettings(mode="replace", input=name, output=name)
    _, new = transplant(model, tokenizer, tokenizer, settings, seed=1)
    assert new == []
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", initial_names())
@pytest.mark.parametrize("tied", [True, False])
def test_no_row_is_nan_or_zero(stories, llama32k, name, tied):
    model, old = stories
    model = model if tied else untied()
    settings = TransplantSettings(mode="replace", input=name, output=name)
    transplant(model, old, llama32k, settings, seed=1)
    for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert weight.shape[0] == 32_000
        assert weight.isfinite().all()
        assert (weight.abs().sum(1) > 0).all()


@pytest.mark.parametrize("name", initial_names())
def test_rows_depend_on_the_arguments_only(name):
    old = OLD.clone()
    rows = initialisation(name)(old, TOKENS)
    assert rows.shape == (3, 4)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, initialisation(name)(old, TOKENS))
    assert torch.equal(old, OLD)
    none = NewTokens(ids=[], pieces=[], anchors=TOKENS.anchors, size=2, seed=9)
    assert initialisation(name)(old, none).shape == (0, 4)


def test_mean_is_the_mean_of_pieces_or_of_all_rows():
    expected = torch.stack([OLD[[2, 5, 5]].mean(0), OLD.mean(0), OLD[6]])
    torch.testing.assert_close(initialisation("mean")(OLD, TOKENS), expected)


def test_random_rows_are_those_of_one_draw_for_the_whole_vocabulary():
    noise = torch.randn(5, 4, generator=torch.Generator().manual_seed(9))
    expected = OLD.mean(0) + noise[[1, 3]] * OLD.std(0)
    rows = initialisation("random")(OLD, TOKENS)
    assert torch.equal(rows[:2], expected)
    assert torch.equal(rows[2], OLD[6])


def test_anchors_are_copied_in_the_precision_of_the_model():
    rows = new_rows(OLD.bfloat16(), TOKENS, mean_of_pieces)
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows[[0, 2]], OLD.bfloat16()[[3, 0]])


def test_rows_equal_a_sparse_matrix_over_the_whole_vocabulary(stories, llama32k):
    """The reference multiplies one T (vocab_n, vocab_o) for anchors and new tokens alike."""
    model, old = stories
    tokens, counts = match_rows(old, llama32k, seed=1)
    sources = {new: [source] for new, source in tokens.anchors}
    sources |= dict(zip(tokens.ids, tokens.pieces, strict=True))
    assert len(sources) == counts.rows == tokens.size
    pairs = torch.tensor([(i, j) for i in range(tokens.size) for j in sources[i]]).T
    weights = torch.tensor([1 / len(sources[i]) for i in range(tokens.size) for _ in sources[i]])
    weight = model.get_input_embeddings().weight.detach()
    size = (tokens.size, len(weight))
    expected = torch.sparse.mm(torch.sparse_coo_tensor(pairs, weights, size).coalesce(), weight)
    expected[[i for i in range(tokens.size) if not sources[i]]] = weight.mean(0)
    assert torch.equal(new_rows(weight, tokens, initialisation("mean")), expected)


@pytest.mark.parametrize("side", ["input", "output"])
def test_an_unknown_initialisation_is_refused_before_anything_runs(side):
    composed = config.compose([f"transplant.{side}=meen"])
    with user_error(f"transplant.{side}", *initial_names(), value="meen"):
        config.typed(composed)


def test_listing_names_imports_no_torch():
    code = (
        "import sys; from hpc_llm.vocabulary.initial import initial_names; "
        "assert {'mean', 'random'} <= set(initial_names()); assert 'torch' not in sys.modules"
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
    settings = config.typed(config.compose(names)).transplant
    model, old = stories
    _, new = transplant(model, old, llama32k, settings, seed=1)
    assert (model.get_input_embeddings().weight[new] == 0.5).all()
