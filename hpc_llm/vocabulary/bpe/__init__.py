"""BPE vocabularies of base models as plain data: continued training and removal of tokens.

`BpeTables` holds the tokens and merges of a `tokenizer.json`; `words` counts the words of a text,
cut as the base cuts them; `continued` finds new merges; `leaves` finds tokens to remove.
"""

from hpc_llm.vocabulary.bpe.continued import Additions, continued_merges
from hpc_llm.vocabulary.bpe.leaves import removable_leaves
from hpc_llm.vocabulary.bpe.tables import BpeTables, read_tables
from hpc_llm.vocabulary.bpe.words import count_tokens, count_words

__all__ = [
    "Additions",
    "BpeTables",
    "continued_merges",
    "count_tokens",
    "count_words",
    "read_tables",
    "removable_leaves",
]
