"""LEP and the chat vector on tiny models with real files: what must hold exactly, and refusals."""

import json
from dataclasses import replace

import families
import pytest
import torch
from errors import user_error
from live_bytes import LiveBytes
from tiny import settings
from tokenizers import Tokenizer, decoders, models
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from hpc_llm.ensembles import composition
from hpc_llm.surgery.loading import load_model
from hpc_llm.surgery.merge import save_model
from hpc_llm.vocabulary.transplant import transplant

KINDS = ("lep", "chat_vector")
CHAT = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
ROWS, SHARED = 120, 62


def pairs_tokenizer():
    """Return a tokenizer of `SHARED` tokens of the base, and of pairs of letters."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    letters = [chr(code) for code in (*range(0x61, 0x7B), *range(0x430, 0x450))]
    pairs = [f"{one}{two}" for one in "aei" for two in letters]
    tokens = [*special, *reversed(letters), *pairs][:ROWS]
    scores = [(token, -10 / len(token)) for token in tokens]
    built = Tokenizer(models.Unigram(scores, unk_id=3))
    built.decoder = decoders.Fuse()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=built, **names)


OLD, NEW = families.tokenizer(families.ROWS, 0), pairs_tokenizer()


def write(model, folder, tokenizer=OLD):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def model_of(family="llama", seed=0, dtype=torch.float32, noise=0.0):
    """Return a tiny model; with noise, one that was trained from it."""
    model = families.tiny_model(family)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model.to(dtype)


def moved(model, seed=1):
    """Return `model` after the transplant of the new vocabulary (means)."""
    transplant(model, OLD, NEW, settings().transplant, seed)
    return model


def compose(folder, kind, **options):
    """Compose folder/base, instruct and adapted; return the model folder and the report."""
    out = folder / f"{kind}-{len(list(folder.iterdir()))}"
    out.mkdir()
    cfg, made = config_of(folder, kind, **options), composition(kind)
    made.check(cfg.compose, cfg)
    record = made.compose(out, cfg.compose, cfg)
    report = json.loads((out / f"{kind}.json").read_text())
    assert record.pop("line")
    assert record == report
    return out / "model", report


def config_of(folder, kind, **options):
    """Return the configuration; composing one takes half a second, so it is done once a kind."""
    names = ("base", "instruct", "adapted")
    cfg = settings(f"compose={kind}", *(f"compose.{name}=a/b" for name in names))
    own = {name: str(options.pop(name, folder / name)) for name in names} | options
    return replace(cfg, compose=replace(cfg.compose, **own))


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()


def same(one, other):
    """Return the names of the tensors of two folders that differ in a bit."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]


FAMILIES = [("llama", torch.float32), ("gpt2", torch.bfloat16), ("gptj", torch.float16)]
"""Untied; tied; with a bias at the head."""


@pytest.mark.parametrize(("family", "dtype"), FAMILIES)
def test_a_chat_vector_of_nothing_and_of_everything(family, dtype, tmp_path):
    write(model_of(family, dtype=dtype), tmp_path / "base")
    write(model_of(family, 1, dtype, 0.01), tmp_path / "chat")
    write(moved(model_of(family, 2, dtype, 0.02)), tmp_path / "moved", NEW)
    made, _ = compose(
        tmp_path, "chat_vector", instruct=tmp_path / "base", adapted=tmp_path / "moved"
    )
    assert same(made, tmp_path / "moved") == []
    made, _ = compose(
        tmp_path, "chat_vector", instruct=tmp_path / "chat", adapted=tmp_path / "base"
    )
    assert same(made, tmp_path / "chat") == []
    made, _ = compose(
        tmp_path, "chat_vector", instruct=tmp_path / "chat", adapted=tmp_path / "moved", weight=0
    )
    assert same(made, tmp_path / "moved") == []


def test_the_chat_vector_is_added_to_layers_and_shared_tokens_only(tmp_path):
    write(model_of(), tmp_path / "base")
    write(model_of(seed=1, noise=0.01), tmp_path / "instruct")
    write(moved(model_of(seed=2, noise=0.02)), tmp_path / "adapted", NEW)
    made, report = compose(tmp_path, "chat_vector", weight=0.5)
    base, chat, adapted, found = (
        weights(folder)
        for folder in (*(tmp_path / n for n in ("base", "instruct", "adapted")), made)
    )
    tables = {"model.embed_tokens.weight", "lm_head.weight"}
    squares = 0.0
    for name in found.keys() - tables:
        change = chat[name].double() - base[name].double()
        squares += float(change.square().sum()) * ("self_attn" in name)
        torch.testing.assert_close(found[name].double(), adapted[name].double() + 0.5 * change)
    assert report["groups"]["self_attn"]["norm"] == pytest.approx(squares**0.5)
    ours, theirs = NEW.get_vocab(), OLD.get_vocab()
    assert len(theirs.keys() & ours.keys()) == report["shared_tokens"] == SHARED
    assert report["new_tokens"] == ROWS - SHARED
    for name in tables:
        for token, row in ours.items():
            expected = adapted[name][row].double()
            if token in theirs:
                old = theirs[token]
                expected = expected + 0.5 * (chat[name][old].double() - base[name][old].double())
            torch.testing.assert_close(found[name][row].double(), expected)


def rows(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    return [
        e.weight.detach() for e in (model.get_input_embeddings(), model.get_output_embeddings())
    ]


@pytest.mark.parametrize("variant", ["full", "overlap", "swap"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gptj"])
def test_an_instruct_model_that_is_the_base_leaves_the_embeddings(family, variant, tmp_path):
    """Invariant 11, first half; special rows are those of the instruct model."""
    write(model_of(family), tmp_path / "base")
    write(moved(model_of(family, 2, noise=0.02)), tmp_path / "adapted", NEW)
    made, report = compose(tmp_path, "lep", instruct=tmp_path / "base", variant=variant)
    special = NEW.all_special_ids
    for found, adapted, base in zip(*map(rows, (made, tmp_path / "adapted", tmp_path / "base")),
                                    strict=True):  # fmt: skip
        others = [row for row in range(len(found)) if row not in special]
        change = (found[others] - adapted[others]).norm() / adapted[others].norm()
        assert change < 1e-5
        assert torch.equal(found[special], base[OLD.all_special_ids])
    assert report["special_tokens"] == len(special) == 4
    assert set(report["sides"]) == ({"input"} if family == "gpt2" else {"input", "output"})
    assert report["sides"]["input"]["rows"] == (SHARED if variant == "overlap" else ROWS)


def test_a_mapped_transplant_is_the_transplant_of_the_instruct_model(tmp_path):
    """Invariant 11, second half: within the residual that is reported, on each side."""
    write(model_of(), tmp_path / "base")
    write(model_of(seed=1, noise=0.01), tmp_path / "instruct")
    write(moved(model_of()), tmp_path / "adapted", NEW)
    write(moved(model_of(seed=1, noise=0.01)), tmp_path / "expected", NEW)
    made, report = compose(tmp_path, "lep")
    none, swapped = compose(tmp_path, "lep", variant="swap")
    for place, side in enumerate(("input", "output")):
        fit, expected = report["sides"][side], rows(tmp_path / "expected")[place]
        away = (rows(made)[place] - expected).norm() / expected.norm()
        assert 0 < fit["residual"] < fit["identity_residual"]
        assert away <= fit["residual"] * (1 + 1e-6)  # its special rows are exact
        assert fit["rank"] == fit["width"] == 32
        assert fit["held_out_residual"] > fit["residual"]
        without = (rows(none)[place] - expected).norm() / expected.norm()
        assert without <= swapped["sides"][side]["identity_residual"] * (1 + 1e-6)
    body = [name for name in same(made, tmp_path / "expected") if "layers" in name]
    assert body == []


def test_the_result_has_chat_tokens_template_and_stop_tokens(tmp_path):
    """An instruct model with tokens that the base lacks, and a padded embedding."""
    write(model_of(), tmp_path / "base")
    chat, tokenizer = model_of(seed=1, noise=0.01), AutoTokenizer.from_pretrained(tmp_path / "base")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token, tokenizer.chat_template = "<|im_end|>", CHAT
    chat.resize_token_embeddings(families.ROWS + 8, mean_resizing=False)
    chat.generation_config.eos_token_id = [tokenizer.eos_token_id, 2]
    chat.generation_config.temperature, chat.generation_config.do_sample = 0.6, True
    write(chat, tmp_path / "instruct", tokenizer)
    write(moved(model_of(seed=2, noise=0.02)), tmp_path / "adapted", NEW)
    old = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for kind in KINDS:
        made, report = compose(tmp_path, kind)
        own = AutoTokenizer.from_pretrained(made)
        model = AutoModelForCausalLM.from_pretrained(made)
        assert report["added_tokens"] == ["<|im_start|>", "<|im_end|>"]
        assert own.get_vocab().items() >= NEW.get_vocab().items()
        new = own.convert_tokens_to_ids("<|im_end|>")
        assert (own.eos_token, new) == ("<|im_end|>", ROWS + 1)
        assert model.config.vocab_size == ROWS + 2
        text = own.apply_chat_template([{"role": "user", "content": "abc"}], tokenize=False)
        assert text == "<|im_start|>abc<|im_end|>"
        assert own(text).input_ids[-1] == new
        assert model.generation_config.eos_token_id == [new, NEW.convert_tokens_to_ids("</s>")]
        assert model.generation_config.temperature == 0.6
        for found, theirs in zip(*map(rows, (made, tmp_path / "instruct")), strict=True):
            assert torch.equal(found[new], theirs[old])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_results_load_again(kind, tied, tmp_path):
    """Invariant 12: transformers, and a second save and load, give the same logits."""
    family = "gpt2" if tied else "llama"
    write(model_of(family), tmp_path / "base")
    write(model_of(family, 1, noise=0.01), tmp_path / "instruct")
    write(moved(model_of(family, 2, noise=0.02)), tmp_path / "adapted", NEW)
    made, _ = compose(tmp_path, kind)
    model = load_model(made, settings().model, "fp32")
    head, inputs = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (head is inputs) == tied
    expected = families.logits(model)
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(
        families.logits(AutoModelForCausalLM.from_pretrained(made)), expected
    )
    save_model(model, AutoTokenizer.from_pretrained(made), tmp_path / "again", torch.float32)
    again = families.logits(load_model(tmp_path / "again", settings().model, "fp32"))
    assert torch.equal(again, expected)


def test_the_result_has_the_number_type_of_its_layers(tmp_path):
    write(model_of(), tmp_path / "base")
    write(model_of(seed=1, noise=0.01, dtype=torch.bfloat16), tmp_path / "instruct")
    write(moved(model_of(seed=2, noise=0.02)), tmp_path / "adapted", NEW)
    for kind, dtype in (("lep", torch.bfloat16), ("chat_vector", torch.float32)):
        made, _ = compose(tmp_path, kind)
        assert {tensor.dtype for tensor in weights(made).values()} == {dtype}


def test_stretched_positions_are_kept(tmp_path):
    write(model_of(), tmp_path / "base")
    write(model_of(seed=1, noise=0.01), tmp_path / "instruct")
    stretched = moved(model_of(seed=2, noise=0.02))
    rope = {**stretched.config.rope_parameters, "rope_type": "linear", "factor": 2.0}
    stretched.config.rope_parameters, stretched.config.max_position_embeddings = rope, 512
    write(stretched, tmp_path / "adapted", NEW)
    made, _ = compose(tmp_path, "chat_vector")
    config = AutoModelForCausalLM.from_pretrained(made).config
    assert config.max_position_embeddings == 512
    assert config.rope_parameters["factor"] == 2.0
    config = AutoModelForCausalLM.from_pretrained(compose(tmp_path, "lep")[0]).config
    assert config.max_position_embeddings == 256


def small(folder, name, tokenizer=OLD, **sizes):
    """Write another model than the base."""
    standard = families.tiny_config("llama").to_dict() | sizes
    del standard["model_type"]
    return write(LlamaForCausalLM(LlamaConfig(**standard)), folder / name, tokenizer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["instruct", "adapted"])
def test_models_that_are_no_siblings_are_refused_before_work(kind, key, tmp_path):
    write(model_of(), tmp_path / "base")
    write(model_of("qwen2"), tmp_path / "qwen2")
    small(tmp_path, "wide", hidden_size=64)
    small(tmp_path, "deep", num_hidden_layers=3)
    good = dict.fromkeys(("instruct", "adapted"), tmp_path / "base")
    wrong = {"qwen2": ("qwen2", "llama"), "wide": ("64", "32"), "deep": ("layers.2", "n/a")}
    for name, mentions in wrong.items():
        cfg = config_of(tmp_path, kind, **good | {key: tmp_path / name})
        with user_error(f"compose.{key}", *mentions, tmp_path / "base", value=str(tmp_path / name)):
            composition(kind).check(cfg.compose, cfg)
    for path in (tmp_path / "nowhere", tmp_path):
        cfg = config_of(tmp_path, kind, **good | {key: path})
        with user_error(f"compose.{key}", value=str(path)):
            composition(kind).check(cfg.compose, cfg)


@pytest.mark.parametrize("kind", KINDS)
def test_another_tokenizer_and_another_head_are_refused(kind, tmp_path):
    write(model_of(), tmp_path / "base")
    small(tmp_path, "moved", families.tokenizer(families.ROWS, 5))
    small(tmp_path, "tied", tie_word_embeddings=True)
    write(model_of(), tmp_path / "short", families.tokenizer(families.ROWS + 4, 0))
    base = tmp_path / "base"
    with user_error("compose.instruct", base, "tokens", value=str(tmp_path / "moved")):
        compose(tmp_path, kind, instruct=tmp_path / "moved", adapted=base)
    with user_error("compose.adapted", "tied", "compose.base", value=str(tmp_path / "tied")):
        compose(tmp_path, kind, instruct=base, adapted=tmp_path / "tied")
    with user_error("compose.adapted", "99", "96", value=str(tmp_path / "short")):
        compose(tmp_path, kind, instruct=base, adapted=tmp_path / "short")
    assert not any(path.name == "model" for path in tmp_path.rglob("*"))


def test_wrong_settings_are_refused():
    lep = ["compose=lep", "compose.base=a/b", "compose.instruct=a/b", "compose.adapted=a/b"]
    assert settings(*lep).compose.variant == "full"
    with user_error("compose.variant", "full, overlap, swap", value="both"):
        settings(*lep, "compose.variant=both")
    with user_error("compose.varaint", "compose.variant"):
        settings(*lep, "compose.varaint=full")
    with user_error("compose.variant", "choose one of", "weight"):
        settings(*lep, "compose=chat_vector", "+compose.variant=full")
    with user_error("compose.adapted", "compose.adapted=", value="null"):
        settings(*lep[:3])
    with user_error("compose.weight", "number", value="much"):
        settings("compose=chat_vector", *lep[1:], "compose.weight=much")
    with user_error("compose.weight", value=11.0):
        settings("compose=chat_vector", *lep[1:], "compose.weight=11")
    with user_error("compose", "lep", value="lpe"):
        settings("compose=lpe")
    with user_error("compose", "lep", "chat_vector", value="uniform"):
        composition("uniform")


def test_layers_are_never_in_memory_as_a_whole(tmp_path):
    """Of a model of many layers, three tensors at a time."""
    sizes = {"num_hidden_layers": 24, "intermediate_size": 512}
    for name, tokenizer in (("base", OLD), ("instruct", OLD), ("adapted", OLD)):
        small(tmp_path, name, tokenizer, **sizes)
    body = sum(t.nbytes for name, t in weights(tmp_path / "base").items() if "layers" in name)
    for kind in KINDS:
        with LiveBytes() as live:
            compose(tmp_path, kind)
        assert live.peak < body / 3, kind
