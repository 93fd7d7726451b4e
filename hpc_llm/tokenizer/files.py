"""The files of a tokenizer in the Hugging Face layout."""

import shutil
from pathlib import Path

from hpc_llm.errors import UserError

__all__ = ["VOCABULARIES", "copy_tokenizer", "vocabulary_file"]

VOCABULARIES = (
    *("tokenizer.model", "tokenizer.json", "vocab.json", "vocab.txt", "spiece.model"),
    *("sentencepiece.bpe.model", "vocab.model"),
)
"""Files with all tokens; one of a vocabulary that the run trained itself comes first."""
OTHERS = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    *("chat_template.json", "chat_template.jinja"),
)


def vocabulary_file(folder: Path) -> Path:
    """Return the file that identifies the vocabulary of the tokenizer in `folder`.

    Raises `UserError` where there is none.
    """
    for name in VOCABULARIES:
        if (folder / name).is_file():
            return folder / name
    rule = f"has no tokenizer: none of {', '.join(VOCABULARIES)}"
    raise UserError(str(folder), None, rule, "use the tokenizer's own files")


def copy_tokenizer(source: Path, target: Path, *others: str) -> None:
    """Copy a tokenizer's files unchanged, and files that match the patterns `others`."""
    target.mkdir(parents=True, exist_ok=True)
    for pattern in (*VOCABULARIES, *OTHERS, *others):
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)
