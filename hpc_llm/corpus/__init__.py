"""Corpora: read from many file formats, cleaned, deduplicated and split into train, tune, test."""

from hpc_llm.corpus.clean import clean
from hpc_llm.corpus.documents import expand_entries, read_documents
from hpc_llm.corpus.split import CorpusCounts, build_corpus, load_texts, read_texts

__all__ = [
    "CorpusCounts",
    "build_corpus",
    "clean",
    "expand_entries",
    "load_texts",
    "read_documents",
    "read_texts",
]
