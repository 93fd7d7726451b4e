"""Continued BPE against a plain loop, and against what the `tokenizers` library encodes."""

from collections import Counter
from itertools import pairwise

import pytest
import regex
from bpe_bases import KINDS, backend, parts_of, russian, tables_of, written
from errors import user_error
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from hpc_llm.settings.scripts import require_scripts
from hpc_llm.vocabulary.bpe import continued_merges, count_words, read_tables
from hpc_llm.vocabulary.bpe.words import word_cutter
from hpc_llm.vocabulary.surfaces import surface_of

CYRILLIC = regex.compile(r" ?\p{Cyrillic}+")


@pytest.fixture(scope="module", params=KINDS)
def base(request):
    return backend(request.param)


def counted(made, texts):
    return count_words(texts, made, tables_of(made))


def encoded(made, texts):
    return [found.tokens for found in made.encode_batch(texts, add_special_tokens=False)]


def plain_loop(tables, words, tokens, least):
    """Join the most frequent pair, again and again: each round encodes and counts everything."""
    new, merges = [], []
    grown = tables
    while len(new) < tokens:
        model = grown.model()
        spelt = {word: [t.value for t in model.tokenize(word)] for word in words}
        pairs = Counter()
        for word, parts in spelt.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        found = []
        for (a, b), n in pairs.items():
            joined = (tables.surface(a) + tables.surface(b)).decode("utf-8", "replace")
            fine = CYRILLIC.fullmatch(joined) and not {a, b} & tables.apart
            if n >= least and fine:
                found.append((-n, joined.encode(), len(tables.surface(a)), (a, b)))
        if not found:
            break
        pair = min(found)[-1]
        joined = "".join(pair)
        merges.append(pair)
        added = [] if joined in grown.vocab else [joined]
        new += added
        grown = grown.with_additions(added, [pair])
    return new, merges


WORDS = st.dictionaries(
    st.text(alphabet="абвг", min_size=1, max_size=7).map(lambda word: f"▁{word}"),
    st.integers(1, 9), min_size=1, max_size=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def letters():
    """A base with the letters of `WORDS`, two of its tokens reached in more than one way."""
    made = backend("llama2")
    tables = tables_of(made)
    return tables.with_additions([*"абвг", "аб", "абв"], [("а", "б"), ("аб", "в")])


@settings(max_examples=60, deadline=None)
@given(words=WORDS, tokens=st.integers(1, 12), least=st.integers(1, 4))
def test_finds_the_merges_of_a_plain_loop(letters, words, tokens, least):
    found = continued_merges(letters, words, tokens, least, ["Cyrillic"])
    assert (found.tokens, found.merges) == plain_loop(letters, words, tokens, least)


@settings(max_examples=30, deadline=None)
@given(words=WORDS, data=st.data())
def test_does_not_depend_on_the_order_of_words(letters, words, data):
    other = dict(data.draw(st.permutations(list(words.items()))))
    one, two = (continued_merges(letters, w, 9, 1, ["Cyrillic"]) for w in (words, other))
    assert one == two


def test_the_encoder_finds_each_new_token_as_often_as_counted(base):
    texts = russian()
    found = continued_merges(tables_of(base), counted(base, texts), 60, 2, ["Cyrillic"])
    new = written(base, tables_of(base).with_additions(found.tokens, found.merges))
    counts = Counter(token for tokens in encoded(new, texts) for token in tokens)
    assert counts == found.counts
    assert len(found.tokens) == 60
    parts = {part for pair in found.merges for part in pair}
    for token in found.tokens:
        assert counts[token] > 0 or token in parts, token
        assert [t.value for t in new.model.tokenize(token)] == [token]
    before = sum(map(len, encoded(base, texts)))
    assert sum(counts.values()) < before / 2
    decoded = new.decode_batch([found.ids for found in new.encode_batch(texts)])
    assert decoded == texts


def test_old_ids_stay_and_text_without_new_pairs_keeps_them(base):
    texts, english = russian(), ["the cat, there <s> 12", "<|chat|> what then"]
    tables = tables_of(base)
    found = continued_merges(tables, counted(base, texts), 40, 2, ["Cyrillic"])
    grown = tables.with_additions(found.tokens, found.merges)
    new = written(base, grown)
    assert {t: i for t, i in new.get_vocab().items() if i < tables.size} == tables.vocab
    assert sorted(grown.vocab[token] for token in found.tokens) == list(
        range(tables.size, tables.size + 40)
    )
    assert encoded(new, english) == encoded(base, english)
    assert [x.ids for x in new.encode_batch(english)] == [x.ids for x in base.encode_batch(english)]


def test_new_tokens_are_words_of_the_scripts(base):
    texts = [*russian(), *["тест12 тест12 12!! (тест) quick quicker ..."] * 30]
    tables = tables_of(base)
    for script, pattern in {"Cyrillic": CYRILLIC, "Latin": regex.compile(r" ?\p{Latin}+")}.items():
        found = continued_merges(tables, counted(base, texts), 200, 2, [script])
        assert len(found.tokens) > 2
        for token in found.tokens:
            surface = surface_of(token, tables.byte_level).text
            assert pattern.fullmatch(surface.decode()), surface


def test_special_strings_in_texts_are_never_joined(base):
    texts = ["<s><s> <|chat|> < s > s>"] * 50
    found = continued_merges(tables_of(base), counted(base, texts), 50, 1, ["Latin"])
    assert not {"<s>", "<|chat|>"} & {"".join(pair) for pair in found.merges}


@pytest.mark.parametrize("kind", ["gpt2", "llama2"])
def test_letters_of_three_bytes(kind):
    texts = ["สวัสดี ครับ สวัสดี", "ภาษาไทย ครับ"] * 20
    base = backend(kind)
    tables = tables_of(base)
    found = continued_merges(tables, counted(base, texts), 400, 2, ["Thai"])
    new = written(base, tables.with_additions(found.tokens, found.merges))
    old_tokens, new_tokens = (encoded(made, ["สวัสดี ครับ"])[0] for made in (base, new))
    assert len(new_tokens) < len(old_tokens) / 3
    assert new_tokens[-1] in found.tokens
    for token in found.tokens:  # whole letters, or the head of one
        text = tables.surface(token).decode("utf-8", "replace")
        assert "\ufffd" not in text or len(text) == 1, text


def test_a_rarer_pair_than_min_count_is_not_joined(base):
    words = counted(base, russian())
    found = continued_merges(tables_of(base), words, 10_000, 40, ["Cyrillic"])
    assert 0 < len(found.tokens) < 200
    more = continued_merges(tables_of(base), words, 10_000, 4, ["Cyrillic"])
    assert len(more.tokens) > len(found.tokens)


def test_merges_are_read_as_pairs_and_as_strings(base):
    parts = parts_of(base)
    strings = {**parts, "model": {**parts["model"]}}
    strings["model"]["merges"] = [" ".join(pair) for pair in parts["model"]["merges"]]
    assert read_tables(strings, "extend") == read_tables(parts, "extend")


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece"])
def test_other_vocabularies_are_refused(kind):
    parts = {"model": {"type": kind, "vocab": []}, "added_tokens": []}
    with user_error("transplant.mode", "BPE", kind, value="extend"):
        read_tables(parts, "extend")


@pytest.mark.parametrize("names", [[], ["Klingon"], ["Latin", "Cyrillic}"]])
def test_unknown_scripts_are_refused(names):
    with user_error("transplant.extend.scripts", "Cyrillic", value=names[-1] if names else "[]"):
        require_scripts("transplant.extend.scripts", names)


def test_marked_parts_of_words_are_refused(base):
    parts = parts_of(base)
    parts["model"]["end_of_word_suffix"] = "</w>"
    with user_error("transplant.mode", "</w>", value="extend"):
        read_tables(parts, "extend")


def test_words_together_have_the_ids_of_the_text(base):
    """Also with a token across a space, at which words are not cut."""
    texts = [*russian(3), "  two  spaces", "the<s>cat", "a\n\n b", "", " "]
    tables = tables_of(base)
    if not tables.byte_level:
        joined = [("t", "▁"), ("t▁", "t")]
        tables = tables.with_additions(["t▁", "t▁t"], joined)
    made = written(base, tables)
    made.encode_special_tokens = True
    cut = word_cutter(made, tables)
    for text in texts:
        words = [token.value for word in cut(text) for token in made.model.tokenize(word)]
        assert words == made.encode(text, add_special_tokens=False).tokens, text


def test_long_texts_are_counted_in_chunks(base):
    text = " ".join(russian(5, 60)).replace("\n", " ")
    assert len(text) > 10_000
    assert counted(base, [text]) == Counter(word_cutter(base, tables_of(base))(text))


def test_llama2_on_real_prose(shared):
    """'интеллект' becomes one token; every other property holds on a real vocabulary."""
    made = Tokenizer.from_file(str(shared / "data/tokenizers/llama2-32k/tokenizer.json"))
    texts = ["Искусственный интеллект и человеческий интеллект, говорит он."] * 9
    tables = tables_of(made)
    assert len(made.encode("интеллект", add_special_tokens=False)) == 3
    found = continued_merges(tables, counted(made, texts), 64, 2, ["Cyrillic"])
    new = written(made, tables.with_additions(found.tokens, found.merges))
    assert new.encode("интеллект", add_special_tokens=False).tokens == ["▁интеллект"]
