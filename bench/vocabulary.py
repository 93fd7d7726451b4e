"""Compare vocabulary modes on one base tokenizer: tokens for equal held-out text, and CPU seconds.

    python bench/vocabulary.py --tokenizer FOLDER --target FILES --source FILES --pieces 16384

`FOLDER` holds the tokenizer files of a base model; no weights are needed. Every twentieth document
of each language is held out. Each mode builds its vocabulary as the tokenizer stage does; the CPU
seconds are those of all threads, without reading the text. The tokens of `--words` show how single
words are split.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, LlamaConfig

from hpc_llm import config
from hpc_llm.corpus import expand_entries, read_documents
from hpc_llm.stages.texts import encoder
from hpc_llm.vocabulary.modes import Base, mode_of

HOLD_OUT = 20


def main() -> None:
    """Build each vocabulary, print a table in Markdown and write `--output`."""
    asked = parse()
    languages = ("target", "source")
    documents = {name: read(getattr(asked, name)) for name in languages}
    train = {k: [t for i, t in enumerate(v) if i % HOLD_OUT] for k, v in documents.items()}
    held = {k: v[::HOLD_OUT] for k, v in documents.items()}
    old = AutoTokenizer.from_pretrained(asked.tokenizer)
    rows = [measured("base", old, held, old, asked.words, 0.0)]
    columns = ["vocabulary", "tokens", "target", "source", "bytes a token", *asked.words, "CPU s"]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    print(line(rows[0]), flush=True)
    for name, words in vocabularies(asked, max(old.get_vocab().values()) + 1):
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            built = build(words, asked.tokenizer, old, train, Path(folder))
            seconds = time.process_time() - began
            rows.append(measured(name, built, held, old, asked.words, seconds))
        print(line(rows[-1]), flush=True)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")


def read(entries: list[str]) -> list[str]:
    """Return the documents of files in any format of `corpus.target`."""
    settings = config.typed(config.compose(["corpus=sample"])).corpus
    return [text for entry in expand_entries(entries) for text in read_documents(entry, settings)]


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--target", required=True, nargs="+")
    parser.add_argument("--source", required=True, nargs="+")
    parser.add_argument("--pieces", type=int, default=16_384)
    parser.add_argument("--scripts", default="[Cyrillic]")
    parser.add_argument("--min-count", type=int, default=10)
    parser.add_argument("--words", nargs="*", default=["интеллект"])
    parser.add_argument("--output", type=Path, default=Path("bench/results/vocabulary.json"))
    return parser.parse_args()


def vocabularies(asked: argparse.Namespace, size: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the settings of each vocabulary; `size` is that of the base."""
    shared = [
        f"transplant.extend.pieces={asked.pieces}", f"transplant.extend.scripts={asked.scripts}",
        f"transplant.extend.min_count={asked.min_count}", f"tokenizer.vocab_size={size}",
    ]  # fmt: skip
    keep = size - asked.pieces // 2
    yield f"replace: unigram {size:,}", [*shared, "transplant=replace"]
    yield f"replace: BPE {size:,}", [*shared, "transplant=replace", "tokenizer=bpe"]
    yield f"extend +{asked.pieces:,}", [*shared, "transplant=extend"]
    optimise = f"transplant.optimise.keep={keep}", "transplant.optimise.min_count=1000000000"
    yield f"optimise {keep:,} +{asked.pieces:,}", [*shared, "transplant=optimise", *optimise]
    yield f"swap {asked.pieces:,}", [*shared, "transplant=swap"]


def build(words: list[str], path: str, old: Any, train: dict[str, list[str]], folder: Path) -> Any:
    """Return the tokenizer that the mode of the settings `words` writes into `folder`."""
    model = folder / "base"
    LlamaConfig().save_pretrained(model)  # the mode asks for the model type only
    cfg = config.typed(config.compose(["model=weights", f"model.path={model}", *words]))
    size = max(old.get_vocab().values()) + 1
    base = Base(cfg=cfg, path=model, tokenizer=old, rows=size, texts=lambda name: train[name])
    (folder / "new").mkdir()
    return mode_of(cfg).build(base, folder / "new").tokenizer


def measured(
    name: str, new: Any, held: dict[str, list[str]], old: Any, words: list[str], seconds: float
) -> dict[str, Any]:
    """Return the tokens of `new` on held-out text, relative to those of the base."""
    counts, bases = (
        {language: sum(map(len, encoder(each, "text")(texts))) for language, texts in held.items()}
        for each in (new, old)
    )
    size = sum(len(text.encode()) for text in held["target"])
    return {
        "vocabulary": name,
        "tokens": len(new),
        "target": counts["target"] / bases["target"],
        "source": counts["source"] / bases["source"],
        "bytes_a_token": size / counts["target"],
        "words": {word: len(new.tokenize(word)) for word in words},
        "seconds": seconds,
    }


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    numbers = [f"{row['target']:.3f}", f"{row['source']:.3f}", f"{row['bytes_a_token']:.2f}"]
    cells = [row["vocabulary"], f"{row['tokens']:,}", *numbers, *map(str, row["words"].values())]
    return "| " + " | ".join([*cells, f"{row['seconds']:.0f}"]) + " |"


if __name__ == "__main__":
    main()
