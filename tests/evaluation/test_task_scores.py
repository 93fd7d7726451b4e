"""Scores of choices against a loop of one forward pass for each, without batches."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hpc_llm.evaluation.bits_per_byte import document_nll
from hpc_llm.evaluation.tasks.scorer import Scorer
from hpc_llm.settings import EvaluationSettings

BOS = 1
TEXTS = ["Мама мыла раму, потому что рама была грязной.", "The cat sat on the mat.", "\n\n  да"]
REQUESTS = [
    ("Мама мыла раму", ", потому что рама была грязной."),
    ("The cat sat", " on the mat."),
    ("The cat sat\n", "\n on"),
    ("", "Мама мыла"),
    ("Ответ:", " да"),
    ("Ответ:", "  нет 🙂"),
]


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def sentencepiece_like():
    """It prepends a space, and spells unknown characters in bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=390, special_tokens=names, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def lower_case():
    """It changes the text, so only its offsets tell which token stands for what."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def settings(**changes):
    given = {"window": 64, "stride": 32, "batch_tokens": 1000, "test_bytes": 1, "tune_bytes": 1}
    return EvaluationSettings(**given | changes)


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=420,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def scorer_of(model, tokenizer, first_token=BOS, **changes):
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)

    def encode(texts):
        return fast(texts, add_special_tokens=False)["input_ids"]

    return Scorer(model, fast, encode, first_token, settings(**changes))


@torch.no_grad()
def loop_score(model, ids, start, first=BOS):
    """One forward pass: the sum of log P of the tokens from `start`."""
    sequence = torch.tensor([[first, *ids]])
    logs = model(input_ids=sequence).logits[0].double().log_softmax(-1)
    return sum(float(logs[i, ids[i]]) for i in range(start, len(ids)))


@pytest.mark.parametrize("make", [byte_level, sentencepiece_like, lower_case])
@pytest.mark.parametrize("batch_tokens", [1, 1000])
def test_scores_equal_a_loop(model, make, batch_tokens):
    scorer = scorer_of(model, make(), batch_tokens=batch_tokens)
    expected = []
    for prompt, text in REQUESTS:
        encoding = make().encode(prompt + text, add_special_tokens=False)
        ends = [end for _, end in encoding.offsets]
        start = next(i for i, end in enumerate(ends) if end > len(prompt))
        expected.append(loop_score(model, encoding.ids, start))
    found = scorer.scores(REQUESTS)
    np.testing.assert_allclose([score.nats for score in found], expected, atol=1e-4)
    assert not any(score.cut for score in found)


def test_a_token_that_straddles_the_border_counts_wholly(model):
    vocab = {"<unk>": 0, "a": 1, "b": 2, "c": 3, "bc": 4}
    scorer = scorer_of(model, Tokenizer(models.BPE(vocab, [("b", "c")], unk_token="<unk>")))
    (score,) = scorer.scores([("ab", "ca")])
    assert score.nats == pytest.approx(loop_score(model, [1, 4, 1], 1), abs=1e-4)


def test_a_whole_text_equals_its_document_loss(model):
    scorer = scorer_of(model, byte_level())
    texts = [TEXTS[0], TEXTS[1], TEXTS[0][:9]]
    nll = document_nll(model, scorer.encode(texts), settings(), BOS)
    found = scorer.scores([("", text) for text in texts])
    np.testing.assert_allclose([score.nats for score in found], -nll, rtol=1e-6)


def test_a_long_prompt_is_cut_on_the_left_and_a_long_text_scored_in_windows(model):
    scorer = scorer_of(model, byte_level(), window=12, stride=5)
    prompt, text = " слово за слово," * 3, " мыла"
    (ids,) = scorer.encode([prompt + text])
    (own,) = scorer.encode([text])
    assert ids[-len(own) :] == own
    assert len(own) <= 12 < len(ids)
    (short, long, fits) = scorer.scores([(prompt, text), ("мыла", prompt), ("a", "b")])
    kept = ids[-12:]
    assert short.nats == pytest.approx(loop_score(model, kept, 12 - len(own)), abs=1e-4)
    (ids,) = scorer.encode(["мыла" + prompt])
    (before,) = scorer.encode(["мыла"])
    rest = document_nll(model, [ids[len(before) :]], scorer.settings, BOS)
    assert long.nats == pytest.approx(-float(rest[0]), abs=1e-4)
    assert (short.cut, long.cut, fits.cut) == (True, True, False)


def test_without_a_first_token_the_first_token_is_not_scored(model):
    scorer = scorer_of(model, byte_level(), first_token=None)
    found = scorer.scores([("", TEXTS[1]), ("The cat", " sat")])
    (ids,) = scorer.encode([TEXTS[1]])
    whole = document_nll(model, [ids], settings(), None)
    assert found[0].nats == pytest.approx(-float(whole[0]), abs=1e-5)
    (ids,), (head,) = scorer.encode(["The cat sat"]), scorer.encode(["The cat"])
    expected = loop_score(model, ids[1:], len(head) - 1, first=ids[0])
    assert found[1].nats == pytest.approx(expected, abs=1e-4)


def test_equal_requests_tie_exactly_and_cost_one_pass(model):
    rows = []
    handle = model.register_forward_hook(lambda m, given, out: rows.append(len(out.logits)))
    found = scorer_of(model, byte_level()).scores([("a", " cat"), ("b", " cat"), ("a", " cat")])
    handle.remove()
    assert found[0] == found[2] != found[1]
    assert sum(rows) == 2
