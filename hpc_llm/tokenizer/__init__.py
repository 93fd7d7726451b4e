"""The new tokenizer: training, fertility, export to transformers, and encoding of token shards."""

from hpc_llm.tokenizer.encode import ShardCounts, encode_shards, open_shards
from hpc_llm.tokenizer.export import export_fast
from hpc_llm.tokenizer.measures import compare, measure
from hpc_llm.tokenizer.specials import SpecialTokens, special_tokens_of
from hpc_llm.tokenizer.text import text_encoder
from hpc_llm.tokenizer.unigram import train_vocabulary

__all__ = [
    "ShardCounts",
    "SpecialTokens",
    "compare",
    "encode_shards",
    "export_fast",
    "measure",
    "open_shards",
    "special_tokens_of",
    "text_encoder",
    "train_vocabulary",
]
