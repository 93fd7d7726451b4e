"""Settings on which the stages of the tokenizer depend, for fingerprints."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpc_llm.corpus.parallel import parallel_file, read_parallel
from hpc_llm.rundir import fingerprint_path
from hpc_llm.settings import RunConfig
from hpc_llm.tokenizer.lexicon import read_lexicon
from hpc_llm.tokenizer.own import own_folder
from hpc_llm.training.checkpoints.differences import CONTENT
from hpc_llm.vocabulary.modes import mode_of

__all__ = ["measuring_settings", "vocabulary_settings"]

MEASURING = ("compare", "lexicon", "parity")  # of the measures, not of the vocabulary


def vocabulary_settings(cfg: RunConfig) -> dict[str, Any]:
    """Return the settings of `conf/tokenizer/` on which the new vocabulary depends."""
    tokenizer = asdict(cfg.tokenizer)
    for key in MEASURING:
        del tokenizer[key]
    own = tokenizer.pop("path")
    if own is not None or not mode_of(cfg).trains_vocabulary:
        tokenizer = {"special_strings": cfg.tokenizer.special_strings}
    if own is not None:
        tokenizer["path" + CONTENT] = fingerprint_path(own_folder(own))
    return tokenizer


def measuring_settings(cfg: RunConfig) -> dict[str, Any]:
    """Return what the measures of tokenizers depend on beside these tokenizers.

    Reads lexicon and parallel texts: unreadable ones are a `UserError` before any stage runs.
    """
    own, found = cfg.tokenizer, {}
    if own.compare:  # a vocabulary of its own, by all settings of training
        found = asdict(own)
        for key in ("lexicon", "parity", "path"):
            del found[key]
    if own.lexicon is not None:
        read_lexicon(Path(own.lexicon))
        found["lexicon" + CONTENT] = fingerprint_path(Path(own.lexicon).expanduser())
    if own.parity:
        read_parallel("tokenizer.parity", own.parity, cfg.corpus)
        for language, entry in own.parity.items():
            path = parallel_file(f"tokenizer.parity.{language}", entry)
            found[f"parity.{language}{CONTENT}"] = fingerprint_path(path)
    return found
