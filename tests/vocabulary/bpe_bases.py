"""Small BPE tokenizers of the kinds that base models have, trained on the spot."""

import json
import random

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from hpc_llm.vocabulary.bpe import read_tables

ENGLISH = ["the cat and the other cat sat on the mat", "there they are, 12 of them", "then what"]
MARKS = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
KINDS = ("gpt2", "llama3", "mistral", "llama2")


def backend(kind, size=300, texts=()):
    """A `tokenizers.Tokenizer` of the kind of model, which has seen English and `texts` only."""
    byte_level = kind in ("gpt2", "llama3")
    model = models.BPE(
        byte_fallback=not byte_level, fuse_unk=True, ignore_merges=kind == "llama3",
        unk_token=None if byte_level else "<unk>",
    )  # fmt: skip
    made = Tokenizer(model)
    special = ["<s>"] if byte_level else ["<unk>", "<s>", *(f"<0x{i:02X}>" for i in range(256))]
    if byte_level:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    else:
        made.normalizer = MARKS
        made.pre_tokenizer = pre_tokenizers.Split(Regex("(?<!▁)(?=▁)"), "isolated")
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
             decoders.Strip(" ", 1, 0)]
        )  # fmt: skip
    trainer = trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if byte_level else [],
    )  # fmt: skip
    made.train_from_iterator([*ENGLISH * 3, *texts], trainer)
    parts = parts_of(made)
    if not byte_level:  # no cut into words; byte tokens are found by the model, not in texts
        parts["added_tokens"] = parts["added_tokens"][:2]
        parts["pre_tokenizer"] = None
    if kind == "llama2":
        parts["normalizer"] = None
        parts["pre_tokenizer"] = METASPACE
    made = Tokenizer.from_str(json.dumps(parts))
    made.add_special_tokens([AddedToken("<|chat|>", special=True)])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
    )
    return made


def parts_of(made):
    """The parts of its `tokenizer.json`."""
    return json.loads(made.to_str())


def tables_of(made):
    """Its tables."""
    return read_tables(parts_of(made), "extend")


def written(made, tables):
    """The tokenizer with other tables."""
    return Tokenizer.from_str(json.dumps(tables.write(parts_of(made))))


def latin(seed=0, documents=60):
    """Texts of made-up words of Latin letters."""
    draw = random.Random(seed)
    stems = ["quod", "vidi", "lorem", "bis", "ager", "regn", "ludus", "magn"]
    ends = ["", "us", "um", "ibus", "arum", "is"]
    words = (
        " ".join(draw.choice(stems) + draw.choice(ends) for _ in range(9)) for _ in range(documents)
    )
    return list(words)


def russian(seed=0, documents=40):
    """Texts of made-up Russian words with common stems and endings, digits and punctuation."""
    draw = random.Random(seed)
    stems = ["говор", "дом", "человек", "книг", "пис", "интеллект", "кот", "прекрасн"]
    ends = ["", "а", "у", "ом", "ами", "ит", "ить", "ого", "уальный"]

    def word():
        text = draw.choice(stems) + draw.choice(ends)
        return draw.choice([text, text.title(), text + ",", text + "!", "12", "the cat"])

    return [" ".join(word() for _ in range(30)) + "\n" + word() for _ in range(documents)]
