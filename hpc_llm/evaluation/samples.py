"""Continuations of prompts: greedy for the report, also sampled for answers; deterministic."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from hpc_llm.errors import UserError
from hpc_llm.evaluation.dealing import dealt
from hpc_llm.evaluation.inference import device_for, inference, is_partitioned, positions_of
from hpc_llm.tokenizer.text import Encode, first_token, text_encoder

__all__ = ["continue_encoded", "continue_ids", "continue_texts"]

GREEDY = {"do_sample": False}


def continue_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    encode: Encode | None = None,
) -> list[str]:
    """Return the greedy continuation of each prompt as text, without the prompt itself.

    Each prompt follows BOS (EOS where there is none), as documents do in training, and is
    continued alone, so that no padding is needed; generation stops at EOS, `max_new_tokens`, or
    after as many tokens as the longest prompt leaves positions free. `encode` turns texts into ids;
    None: the `text_encoder` of `tokenizer`. Collective: prompts are dealt to the ranks. Raises
    `UserError` when a prompt is empty or leaves no position free.
    """
    encode = encode or text_encoder(tokenizer)
    first = first_token(tokenizer)
    start = [] if first is None else [first]
    encoded = [start + ids for ids in encode(list(prompts))]
    most = min([max_new_tokens, *(_free(model, ids, max_new_tokens) for ids in encoded)])
    return continue_encoded(model, tokenizer, encoded, most)


def continue_encoded(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[list[int]],
    max_new_tokens: int,
    until: Sequence[str] = (),
) -> list[str]:
    """Return the greedy continuation of each prompt, given as token ids (collective).

    Generation also stops once the continuation holds one of the texts `until` after its leading
    white space.
    """

    def compute(ids: list[int]) -> str:
        return _continue(model, tokenizer, ids, max_new_tokens, until)

    # a partitioned model generates in step: a rank without a prompt repeats the first one
    idle = (lambda: compute(encoded[0])) if is_partitioned(model) else None
    with inference(model):
        return dealt(encoded, compute, idle)


def continue_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
) -> str:
    """Return the continuation of one encoded prompt, with its BOS, as text.

    Greedy at temperature 0; above, every token is drawn from softmax(logits / temperature), seeded
    by `seed`. Generation stops as in `continue_texts`. Raises `UserError` when the prompt is empty
    or leaves no position free.
    """
    most = min(max_new_tokens, _free(model, ids, max_new_tokens))
    with inference(model):
        if temperature == 0:
            return _continue(model, tokenizer, ids, most)
        torch.manual_seed(seed)
        drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        return _continue(model, tokenizer, ids, most, drawn=drawn)


def _free(model: PreTrainedModel, ids: list[int], max_new_tokens: int) -> int:
    """Return the positions that a prompt leaves free; raises `UserError` if there is none."""
    free = (positions_of(model) or len(ids) + max_new_tokens) - len(ids)
    if free < 1 or not ids:
        raise UserError(
            "prompt",
            f"{len(ids)} tokens",
            f"must have 1 to {len(ids) + free - 1} tokens, so that the model can continue it",
            "use a shorter prompt" if ids else "provide a prompt",
        )
    return free


def _continue(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    max_new_tokens: int,
    until: Sequence[str] = (),
    drawn: Mapping[str, Any] = GREEDY,
) -> str:
    inputs = torch.tensor([ids], device=device_for(model))
    generation = GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=1,
        repetition_penalty=1.0,  # otherwise the model's own configuration sets it
        no_repeat_ngram_size=0,
        use_cache=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        **drawn,
    )
    output = model.generate(
        input_ids=inputs,
        attention_mask=torch.ones_like(inputs),
        generation_config=generation,
        stopping_criteria=[partial(_has_ended, tokenizer, ids, until)] if until else None,
        synced_gpus=is_partitioned(model),  # every rank generates until all have finished
    )
    return _new_text(tokenizer, ids, output[0].tolist())


def _has_ended(
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[int],
    until: Sequence[str],
    found: torch.Tensor,
    scores: object,
    **_: object,
) -> torch.Tensor:
    """Return whether one of `until` is in the text after `prompt`, bool (1,), to stop generation.

    `found` (1, tokens) are the ids so far.
    """
    text = tokenizer.decode(found[0, len(prompt) :], skip_special_tokens=True).lstrip()
    return torch.tensor([any(end in text for end in until)], device=found.device)


def _new_text(tokenizer: PreTrainedTokenizerBase, prompt: list[int], whole: list[int]) -> str:
    """Decode what follows `prompt` in `whole`; an incomplete last character is dropped.

    Decoded on its own, the continuation would lose its leading space.
    """
    start = tokenizer.decode(prompt, skip_special_tokens=True)
    text = tokenizer.decode(whole, skip_special_tokens=True)
    return text[len(start) :].rstrip("\N{REPLACEMENT CHARACTER}")
