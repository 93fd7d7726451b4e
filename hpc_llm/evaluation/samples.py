"""Greedy continuations of prompts for the report; deterministic."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from hpc_llm.errors import UserError
from hpc_llm.evaluation.inference import inference, positions_of
from hpc_llm.tokenizer.text import Encode, first_token, text_encoder

__all__ = ["continue_texts"]


def continue_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    encode: Encode | None = None,
) -> list[str]:
    """Return the greedy continuation of each prompt as text, without the prompt itself.

    Each prompt follows BOS (EOS where there is none), as documents do in training, and is
    continued alone, so that no padding is needed; generation stops at EOS, `max_new_tokens` or the
    model's last position. `encode` turns texts into ids; None: the `text_encoder` of `tokenizer`.
    Raises `UserError` when a prompt is empty or leaves no position free.
    """
    encode = encode or text_encoder(tokenizer)
    first = first_token(tokenizer)
    start = [] if first is None else [first]
    with inference(model):
        return [
            _continue(model, tokenizer, start + ids, max_new_tokens)
            for ids in encode(list(prompts))
        ]


def _continue(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[int], max_new_tokens: int
) -> str:
    free = (positions_of(model) or len(ids) + max_new_tokens) - len(ids)
    if free < 1 or not ids:
        raise UserError(
            "prompt",
            f"{len(ids)} tokens",
            f"must have 1 to {len(ids) + free - 1} tokens, so that the model can continue it",
            "use a shorter prompt" if ids else "provide a prompt",
        )
    inputs = torch.tensor([ids], device=next(model.parameters()).device)
    generation = GenerationConfig(
        max_new_tokens=min(max_new_tokens, free),
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,  # otherwise the model's own configuration sets it
        no_repeat_ngram_size=0,
        use_cache=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    output = model.generate(
        input_ids=inputs,
        attention_mask=torch.ones_like(inputs),
        generation_config=generation,
    )
    return _new_text(tokenizer, ids, output[0].tolist())


def _new_text(tokenizer: PreTrainedTokenizerBase, prompt: list[int], whole: list[int]) -> str:
    """Decode what follows `prompt` in `whole`; an incomplete last character is dropped.

    Decoded on its own, the continuation would lose its leading space.
    """
    start = tokenizer.decode(prompt, skip_special_tokens=True)
    text = tokenizer.decode(whole, skip_special_tokens=True)
    return text[len(start) :].rstrip("\N{REPLACEMENT CHARACTER}")
