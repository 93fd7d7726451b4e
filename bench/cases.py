"""Cases of `bench/train.py`: models, packed text, and the cost of a step."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm import config
from hpc_llm.accounting import Architecture, StageFlops, stage_method
from hpc_llm.corpus import read_documents
from hpc_llm.distributed import Ranks
from hpc_llm.settings import RunConfig
from hpc_llm.stages.reader import TrainingText, open_reader
from hpc_llm.surgery.loading import DTYPES
from hpc_llm.tokenizer.encode import encode_shards
from hpc_llm.tokenizer.specials import SpecialTokens
from hpc_llm.tokenizer.unigram import MODEL_NAME, train_vocabulary
from hpc_llm.training.data.batches import plan_batches
from hpc_llm.training.data.rows import Rows

__all__ = ["LEARNING_RATE", "MODELS", "Case", "build_model", "prepare_text"]

VOCABULARY = 32_000
LEARNING_RATE = 3e-4
WARM_UP = 1  # turns excluded from the results


@dataclass(frozen=True)
class Model:
    """A Llama model, and its tokens per step."""

    architecture: dict[str, Any]
    length: int
    rows: int


MODELS = {
    # the sizes of stories15M (karpathy/llama2.c)
    "15m": Model(
        {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6,
         "num_attention_heads": 6, "vocab_size": VOCABULARY, "tie_word_embeddings": True},
        length=512, rows=8,
    ),
    "60m": Model(
        {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8,
         "num_attention_heads": 8, "vocab_size": VOCABULARY, "tie_word_embeddings": False},
        length=512, rows=8,
    ),
    # Llama 3.2 1B (its config.json), for a GPU
    "1b": Model(
        {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
         "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
         "vocab_size": 128_256, "tie_word_embeddings": True},
        length=4096, rows=4,
    ),
    # Llama 3.1 8B (its config.json), for a GPU
    "8b": Model(
        {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
         "tie_word_embeddings": False},
        length=4096, rows=2,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table, without the system that trains it."""

    model: str
    method: str
    precision: str
    folder: str
    """Folder of the text and of temporary runs."""
    threads: int
    steps: int
    """Optimizer steps per turn."""
    rows: int | None = None
    """Sequences per step; None: that of the model."""
    micro: int | None = None
    """Sequences per forward pass; None: all."""
    overrides: tuple[str, ...] = field(default=())
    """Further settings of hpc_llm."""

    @property
    def length(self) -> int:
        """Positions per sequence."""
        return MODELS[self.model].length

    @property
    def tokens(self) -> int:
        """Positions per step."""
        return self.length * (self.rows or MODELS[self.model].rows)

    def settings(self) -> RunConfig:
        """Return the settings of hpc_llm, from which those of the other systems are derived."""
        stage = f"stages.{self.method}"
        overrides = [
            "recipe=none",
            f"+method@stages.{self.method}={self.method}",
            f"train.sequence_length={self.length}",
            f"train.batch_tokens={self.tokens}",
            f"train.micro_batch_tokens={self.micro * self.length if self.micro else 'null'}",
            f"train.precision={self.precision}",
            f"train.threads={self.threads}",
            f"{stage}.steps=1000000",
            f"{stage}.max_epochs=1000000",
            f"{stage}.learning_rate={LEARNING_RATE}",
            "schedule=constant",
            "schedule.warmup_fraction=0",
            "checkpoint.minutes=1000000",
            "accounting.verify=false",
        ]
        if self.method == "lora":
            overrides += [
                f"{stage}.rank=16",
                f"{stage}.alpha=32",
                f"{stage}.train_embeddings=false",
            ]
        return config.typed(config.compose([*overrides, *self.overrides]))

    def text(self) -> TrainingText:
        """Return the shards."""
        folder = Path(self.folder)
        return TrainingText(vocabulary=folder / MODEL_NAME, shares={folder / "text": 1.0})

    def batches(self, steps: int) -> list[Rows]:
        """Return the sequences of the first steps, in the order in which hpc_llm reads them."""
        cfg = self.settings()
        plan = plan_batches(cfg.train, 1, None)
        reader = open_reader(cfg, self.text(), plan, VOCABULARY, Ranks())
        return [reader.read(part) for step in range(steps) for part in plan.indices(step, 0)]

    def step_flops(self, steps: int) -> float:
        """Return the mean model FLOPs of the first steps: per document, causal."""
        cfg = self.settings()
        plan = plan_batches(cfg.train, 1, None)
        architecture = Architecture.from_config(llama_config(self).to_dict())
        flops = StageFlops.of(
            architecture, stage_method(cfg.stages[self.method]), plan.sequence_length
        )
        counts = [rows.counts for rows in self.batches(steps)]
        tokens, squares = (sum(getattr(c, n) for c in counts) for n in COUNTED)
        return flops.model(tokens, squares) / steps

    def key(self) -> dict[str, Any]:
        """Return the identifying fields of this case, for the results."""
        names = ("model", "method", "precision")
        return {name: asdict(self)[name] for name in names} | {"tokens_per_step": self.tokens}


COUNTED = ("tokens", "squared_lengths")


def llama_config(case: Case) -> LlamaConfig:
    """Return the configuration of the case's model."""
    return LlamaConfig(
        **MODELS[case.model].architecture,
        max_position_embeddings=case.length,
        attn_implementation="sdpa",
        use_cache=False,
    )


def build_model(case: Case, dtype: torch.dtype | None = None) -> LlamaForCausalLM:
    """Return the untrained model, the same for all systems, in training mode."""
    torch.manual_seed(1)
    dtype = dtype or DTYPES[case.precision]
    if not torch.cuda.is_available():
        return LlamaForCausalLM(llama_config(case)).to(dtype).train()
    with torch.device("cuda"), default_dtype(dtype):  # no copy of the whole model on the host
        return LlamaForCausalLM(llama_config(case)).train()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Create tensors of `dtype` inside the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def prepare_text(folder: Path, entry: str, pieces: int) -> None:
    """Train a vocabulary of this size and encode the text to `folder`, once."""
    done, asked = folder / "text.done", json.dumps([entry, pieces])
    if done.exists() and done.read_text() == asked:
        return
    folder.mkdir(parents=True, exist_ok=True)
    cfg = config.typed(config.compose([f"tokenizer.vocab_size={pieces}"]))
    texts = list(read_documents(entry, cfg.corpus))
    specials = SpecialTokens()
    vocabulary = train_vocabulary(texts, [], cfg.tokenizer, specials, cfg.seed, folder)
    encode_shards(texts, vocabulary, folder / "text")
    done.write_text(asked)
