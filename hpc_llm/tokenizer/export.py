"""Exports the vocabulary as a transformers tokenizer with the same ids as sentencepiece.

The transformers loaders of a unigram `tokenizer.model` change ids: `LlamaTokenizer` converts it to
BPE, `XLMRobertaTokenizer` shifts the ids, `T5Tokenizer` adds some and loses the byte tokens. So the
fast tokenizer is built here from its components, and a test compares ids on real text.

One difference is intended: a special token's string in a text (`</s>`) is that special token here,
as in every transformers tokenizer and as chat templates need; sentencepiece reads it as letters.
The text of a run is encoded by `text.text_encoder`, which follows `tokenizer.special_strings`.
"""

import shutil
from pathlib import Path
from typing import Any

from hpc_llm.tokenizer.autoload import keep_class
from hpc_llm.tokenizer.sample import LITERAL, SPACE
from hpc_llm.tokenizer.specials import SpecialTokens, special_tokens_of

__all__ = ["SENTENCEPIECE_NAME", "export_fast", "save_like"]

SENTENCEPIECE_NAME = "sentencepiece.model"  # under `tokenizer.model` transformers would misread it
UNIGRAM = 1  # TrainerSpec.ModelType in sentencepiece_model.proto; BPE is 2
NORMAL, CONTROL = 1, 3  # ModelProto.SentencePiece.Type
CUTS = "[0-9]|\n"


def _model_of(proto: Any) -> Any:
    """Return the `tokenizers` model with the pieces of `proto` in their order."""
    from tokenizers.models import BPE, Unigram

    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    normal = {piece.piece for piece in proto.pieces if piece.type == NORMAL}
    if proto.trainer_spec.model_type == UNIGRAM:
        return Unigram(pieces, unk_id=proto.trainer_spec.unk_id, byte_fallback=True)
    ranks = {piece: rank for rank, (piece, _) in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece, _ in pieces
        for cut in range(1, len(piece))
        if {piece, piece[:cut], piece[cut:]} <= normal
    ]
    return BPE(ranks, merges, unk_token=pieces[0][0], fuse_unk=True, byte_fallback=True)


def _assemble(proto: Any) -> Any:
    """Return a `tokenizers.Tokenizer` that encodes and decodes as sentencepiece does.

    Digits and newlines are split before the model: they are tokens of their own (`unigram.py`),
    so no id changes, but a literal `<0x0A>` in a text is not read as the byte token.
    """
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers

    tokenizer = Tokenizer(_model_of(proto))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(SPACE, LITERAL), normalizers.Replace(" ", SPACE)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(CUTS), behavior="isolated")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Replace(LITERAL, SPACE),
        ]
    )
    return tokenizer


def _added_tokens(proto: Any, base_tokenizer: Any | None) -> list[Any]:
    """Return the control tokens as added tokens, with the flags that the base gives them."""
    from tokenizers import AddedToken

    known = {} if base_tokenizer is None else base_tokenizer.added_tokens_decoder.values()
    of_base = {str(token): token for token in known}
    return [
        of_base.get(piece.piece) or AddedToken(piece.piece, special=True, normalized=False)
        for piece in proto.pieces
        if piece.type == CONTROL
    ]


def _framing(base_tokenizer: Any | None, specials: SpecialTokens) -> tuple[bool, bool]:
    """Return whether a text gets BOS before and EOS after it: as the base does, else BOS alone."""
    if base_tokenizer is None:
        return specials.bos is not None, False
    ids = base_tokenizer("a")["input_ids"]
    bos, eos = base_tokenizer.bos_token_id, base_tokenizer.eos_token_id
    return (
        bos is not None and len(ids) > 1 and ids[0] == bos,
        eos is not None and len(ids) > 1 and ids[-1] == eos,
    )


def _post_processor(tokenizer: Any, specials: SpecialTokens, framing: tuple[bool, bool]) -> Any:
    from tokenizers.processors import TemplateProcessing

    front = [specials.bos] if framing[0] else []
    end = [specials.eos] if framing[1] else []
    used = {
        token
        for token, is_used in zip((specials.bos, specials.eos), framing, strict=True)
        if is_used and token is not None
    }
    return TemplateProcessing(
        single=[*front, "$A", *end],
        pair=[*front, "$A", *end, *front, "$B", *end],
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in sorted(used)],
    )


def export_fast(
    model_file: Path,
    base_tokenizer: Any | None,
    specials: SpecialTokens,
    model_max_length: int | None,
    folder: Path,
    model_type: str | None = None,
) -> Any:
    """Write the vocabulary `model_file` as a fast tokenizer into `folder`, and return it.

    `AutoTokenizer.from_pretrained(folder)` loads the same. BOS and EOS are added as the base
    tokenizer adds them (without a base: BOS alone); its chat template, padding side and the flags
    of its special tokens are kept. `sentencepiece.model` is copied next to it. `model_max_length`
    None: no limit. `model_type` is that of the `config.json` in whose folder the tokenizer will be
    (see `autoload.py`).
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model_file.read_bytes())
    tokenizer = _assemble(proto)
    added = _added_tokens(proto, base_tokenizer)
    tokenizer.add_tokens(added)
    framing = _framing(base_tokenizer, specials)
    tokenizer.post_processor = _post_processor(tokenizer, specials, framing)
    roles = _roles(specials, specials.unk_piece)
    fast = _save(tokenizer, base_tokenizer, roles, model_max_length, folder, model_type)
    shutil.copyfile(model_file, folder / SENTENCEPIECE_NAME)
    return fast


def save_like(backend: Any, base_tokenizer: Any, folder: Path, model_type: str | None) -> Any:
    """Write `backend`, a `tokenizers.Tokenizer` with the base's special tokens, and return it.

    Roles, chat template, padding side and length are those of `base_tokenizer`, a transformers
    tokenizer; `model_type` as in `export_fast`.
    """
    specials = special_tokens_of(base_tokenizer)
    roles = _roles(specials, base_tokenizer.unk_token)
    length = base_tokenizer.model_max_length
    return _save(backend, base_tokenizer, roles, length, folder, model_type)


def _roles(specials: SpecialTokens, unk: str | None) -> dict[str, Any]:
    """Return the special tokens as transformers names their roles."""
    named = {"unk_token": unk, "bos_token": specials.bos, "eos_token": specials.eos}
    return named | {"pad_token": specials.pad, "additional_special_tokens": specials.additional}


def _save(
    backend: Any,
    base_tokenizer: Any | None,
    roles: dict[str, Any],
    model_max_length: int | None,
    folder: Path,
    model_type: str | None,
) -> Any:
    """Write the fast tokenizer of `backend` with special tokens by `_roles`."""
    from transformers import PreTrainedTokenizerFast

    marked = [str(t) for t in backend.get_added_tokens_decoder().values() if t.special]
    roles["additional_special_tokens"] = [
        token for token in marked if token in roles["additional_special_tokens"]
    ]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **roles,
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        padding_side=getattr(base_tokenizer, "padding_side", "right"),
    )
    fast.chat_template = getattr(base_tokenizer, "chat_template", None)
    fast.save_pretrained(folder)
    keep_class(folder, model_type)
    return fast
