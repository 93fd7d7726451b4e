"""The modes extend, optimise and swap on base models of the usual kinds of BPE."""

import numpy as np
import pytest
import torch
from bpe_bases import KINDS, backend, latin, russian
from errors import user_error
from tiny import settings
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hpc_llm.vocabulary.modes import Base, adapted_rows, mode_of
from hpc_llm.vocabulary.rows import TrainingText
from hpc_llm.vocabulary.transplant import transplant

ENGLISH = ["the cat, there <s> 12", "<|chat|> what then", "they sat on the mat"]
RUSSIAN = russian()
WORDS = {
    "extend": ["transplant.extend.pieces=64"],
    "optimise": ["transplant.extend.pieces=64", "transplant.optimise.keep=350"],
    "swap": ["transplant.extend.pieces=20"],
}


def loaded(kind):
    """The tokenizer of a base with the chat template, as transformers loads one."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend(kind, 380, latin()), bos_token="<s>", eos_token="<|chat|>",
        unk_token=None if kind in ("gpt2", "llama3") else "<unk>",
    )  # fmt: skip
    made.chat_template = "{{ messages }}<|chat|>"
    return made


@pytest.fixture(scope="module")
def base_of(tmp_path_factory):
    """Return a function to the base that a mode builds from."""
    path = tmp_path_factory.mktemp("base")
    LlamaConfig().save_pretrained(path)

    def made(kind, mode, *words, rows=None, tokenizer=None, source=ENGLISH):
        texts = {"target": RUSSIAN, "source": source}
        tokenizer = tokenizer or loaded(kind)
        cfg = settings(
            f"transplant={mode}", "model=weights", f"model.path={path}",
            "transplant.extend.min_count=2", "transplant.extend.multiple=16", *WORDS[mode], *words,
        )  # fmt: skip
        size = max(tokenizer.get_vocab().values()) + 1
        return Base(
            cfg=cfg,
            path=path,
            tokenizer=tokenizer,
            rows=rows or size,
            texts=lambda name: texts[name],
        )

    return made


def build(base, folder):
    return mode_of(base.cfg).build(base, folder)


@pytest.fixture(scope="module", params=[(m, k) for m in WORDS for k in KINDS], ids="-".join)
def case(request, base_of, tmp_path_factory):
    mode, kind = request.param
    base = base_of(kind, mode)
    folder = tmp_path_factory.mktemp("tokenizer")
    return mode, base, build(base, folder), AutoTokenizer.from_pretrained(folder)


def test_transformers_loads_the_tokenizer_that_encodes_the_training_text(case):
    _, base, built, again = case
    assert built.coder.encode(RUSSIAN) == [
        again.encode(t, add_special_tokens=False) for t in RUSSIAN
    ]
    assert [again.decode(ids, skip_special_tokens=True) for ids in map(again.encode, RUSSIAN)] == [
        base.tokenizer.decode(ids, skip_special_tokens=True)
        for ids in map(base.tokenizer.encode, RUSSIAN)
    ]
    old = sum(len(base.tokenizer.encode(text)) for text in RUSSIAN)
    assert sum(map(len, built.coder.encode(RUSSIAN))) < old * 0.7


def test_roles_and_chat_template_are_those_of_the_base(case):
    _, base, _, again = case
    old = base.tokenizer
    assert again.special_tokens_map == old.special_tokens_map
    assert again.chat_template == old.chat_template
    assert [again.convert_ids_to_tokens(i) for i in again.encode("<|chat|>the")] == [
        old.convert_ids_to_tokens(i) for i in old.encode("<|chat|>the")
    ]


def test_rows_and_ids_fit(case):
    """Old ids name the same tokens; the number of rows is planned; new tokens can be reached."""
    mode, base, built, again = case
    old, new = base.tokenizer.get_vocab(), again.get_vocab()
    ids = np.asarray(built.old_ids)
    assert len(ids) == built.coder.size == adapted_rows(base.cfg, base.rows)
    names = {i: token for token, i in old.items()}
    fresh = set()
    for token, i in new.items():
        if ids[i] < 0:
            assert token not in old
            fresh.add(token)
        else:
            assert names[ids[i]] == token
    assert len(fresh) == sum(
        built.report[key] for key in ("added", "swapped") if key in built.report
    )
    model = again.backend_tokenizer.model
    assert all([part.value for part in model.tokenize(token)] == [token] for token in fresh)
    if mode == "swap":
        assert len(ids) == base.rows
        assert len(new) == len(old)
    if mode != "optimise":
        kept = ids >= 0
        assert (ids[kept] == np.arange(len(ids))[kept]).all()
    else:
        assert built.report["removed"] == len(old) - 350
        assert len(new) % 16 == 0


def test_other_text_keeps_its_tokens(case):
    _, base, _, again = case
    gone = base.tokenizer.get_vocab().keys() - again.get_vocab().keys()
    same = 0
    for text in ENGLISH:
        tokens = base.tokenizer.tokenize(text)
        if not gone & set(tokens):
            assert again.tokenize(text) == tokens
            same += 1
    assert same


@pytest.mark.parametrize("mode", WORDS)
@pytest.mark.parametrize("tied", [False, True])
def test_logits_of_kept_tokens_stay(base_of, mode, tied, tmp_path):
    base = base_of("gpt2", mode)
    built = build(base, tmp_path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=base.rows, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, tie_word_embeddings=tied,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    ids = base.tokenizer.encode("what then", return_tensors="pt")
    with torch.no_grad():
        before = model(ids).logits
    matrix = model.get_input_embeddings().weight.detach().clone()
    old_ids = np.asarray(built.old_ids)
    counts, unseen = transplant(
        model, base.tokenizer, built.tokenizer, base.cfg.transplant, 1,
        TrainingText(vectors=None, documents=(), state=None), old_ids=old_ids.tolist(),
    )  # fmt: skip
    kept = np.flatnonzero(old_ids >= 0)
    after = model.get_input_embeddings().weight.detach()
    assert torch.equal(after[kept], matrix[old_ids[kept]])
    assert unseen == np.flatnonzero(old_ids < 0).tolist()
    assert counts["unspelled"] == 0
    assert (after[unseen].norm(dim=1) > 0).all()
    again = built.tokenizer.encode("what then", return_tensors="pt")
    assert torch.equal(torch.as_tensor(old_ids)[again], ids)
    with torch.no_grad():
        logits = model(again).logits
    assert torch.equal(logits[..., kept], before[..., old_ids[kept]])


def test_padding_rows_are_used_first_and_the_rest_stays(base_of, tmp_path):
    tokenizer = loaded("gpt2")
    size = len(tokenizer)
    base = base_of("gpt2", "extend", rows=size + 100, tokenizer=tokenizer)
    built = build(base, tmp_path)
    added = built.report["added"]
    assert 40 < added < 100
    assert list(built.old_ids) == [
        *range(size), *[-1] * added, *range(size + added, size + 100)
    ]  # fmt: skip
    assert min(i for t, i in built.tokenizer.get_vocab().items() if i >= size) == size


def test_a_token_without_an_embedding_counts_as_new(base_of, tmp_path):
    tokenizer = loaded("gpt2")
    size = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    base = base_of("gpt2", "extend", rows=size, tokenizer=tokenizer)
    built = build(base, tmp_path)
    assert built.old_ids[built.tokenizer.pad_token_id] == -1


def test_rare_tokens_of_protected_scripts_stay(base_of, tmp_path):
    base = base_of("gpt2", "swap", "transplant.swap.protect=[Latin]", "transplant.extend.pieces=4")
    with user_error("transplant.extend.pieces", "transplant.swap.protect", value=4):
        build(base, tmp_path)


def test_a_removed_token_that_is_found_again_keeps_place_and_row(base_of, tmp_path):
    """Where a second swap can give up only tokens of the first one."""
    first = build(base_of("gpt2", "swap"), tmp_path / "one").tokenizer
    words = "transplant.swap.protect=[Latin]", "transplant.extend.pieces=6"
    built = build(base_of("gpt2", "swap", *words, tokenizer=first, source=[]), tmp_path / "two")
    assert built.report["swapped"] < 6
    assert (np.asarray(built.old_ids) < 0).sum() == built.report["swapped"]
    old, new = first.get_vocab(), built.tokenizer.get_vocab()
    for token in old.keys() & new.keys():
        assert old[token] == new[token] == built.old_ids[new[token]]


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (("transplant.extend.pieces=5000",), "transplant.extend.pieces", 5000),
        (("transplant.extend.scripts=[Thai]",), "transplant.extend.pieces", 64),
        (("transplant.extend.multiple=50000",), "transplant.extend.pieces", 64),
    ],
)
def test_too_many_or_too_few_pieces_are_refused(base_of, tmp_path, words, key, value):
    with user_error(key, value=value):
        build(base_of("llama2", "extend", *words), tmp_path)


@pytest.mark.parametrize("keep", [10, 100_000])
def test_keep_out_of_range_is_refused(base_of, tmp_path, keep):
    with user_error("transplant.optimise.keep", value=keep):
        build(base_of("gpt2", "optimise", f"transplant.optimise.keep={keep}"), tmp_path)


@pytest.mark.parametrize("mode", WORDS)
def test_scripts_are_checked_before_the_run(mode):
    for setting in ("extend.scripts", "swap.protect"):
        with user_error(f"transplant.{setting}", value="Klingon"):
            settings(f"transplant={mode}", f"transplant.{setting}=[Klingon]")


@pytest.mark.parametrize("mode", WORDS)
def test_a_unigram_base_is_refused(base_of, shared, mode, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(shared / "data/models/stories260K-hf")
    words = "Unigram", "transplant=replace"
    if tokenizer.backend_tokenizer.model.__class__.__name__ != "Unigram":
        from tokenizers import Tokenizer, models

        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0)),
            eos_token="<unk>",
        )
    with user_error("transplant.mode", *words, value=mode):
        build(base_of(None, mode, tokenizer=tokenizer), tmp_path)
