"""Model families that cannot be adapted, known before their weights are read; no torch here.

Everything else that transformers builds as a causal model is tried on the model itself: its
vocabulary after the transplant (`hpc_llm.vocabulary.tables`), its packed documents
(`hpc_llm.training.probe`), its costs (`hpc_llm.training.counting`).
"""

import ast
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError

__all__ = ["REFUSED", "causal_families", "check_family"]

PER_TOKEN = "it has further tables with a row per token, which a new vocabulary cannot follow"
FIXED = "its vocabulary cannot be resized"
REFUSED: dict[str, str] = {
    "blt": "it reads bytes and has no vocabulary",
    "cpmant": FIXED,
    "deepseek_v4": PER_TOKEN,
    "fuyu": "it is multimodal",
    "gemma3n_text": PER_TOKEN,
    "gemma4_text": PER_TOKEN,
    "gemma4_unified_text": PER_TOKEN,
    "gemma4_assistant": "it drafts tokens for another model",
    "gemma4_unified_assistant": "it drafts tokens for another model",
    "marian": FIXED,
    "moshi": FIXED,
    "musicgen": "it generates audio codes",
    "musicgen_melody": "it generates audio codes",
    "prophetnet": "it predicts several tokens at once",
    "reformer": FIXED,
    "xlm": "its attention looks ahead",
    "xlnet": "its attention looks ahead",
}
"""Reasons by `model_type`."""
ENCODERS = (
    *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie"),
    *("megatron-bert", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Families whose attention looks ahead unless `is_decoder` is set."""
PARTS = ("text_config", "vision_config", "audio_config", "speech_config", "vq_config")


def check_family(config: Mapping[str, Any], path: str) -> None:
    """Raise `UserError` if a model with this `config.json` cannot be adapted."""
    family = str(config.get("model_type"))
    key = "model.path"
    if reason := REFUSED.get(family):
        raise UserError(key, path, f"{family} cannot be adapted: {reason}", "see docs/families.md")
    if family in ENCODERS and not config.get("is_decoder"):
        rule = f"{family} looks ahead (bidirectional attention): it cannot predict the next token"
        raise UserError(key, path, rule, 'set "is_decoder": true in its config.json')
    if any(config.get(name) for name in PARTS):
        raise _multimodal(config, path)
    known = causal_families()
    if known and family not in known and not config.get("auto_map"):
        rule, fix = _not_causal(family, _class_of(config))
        raise UserError(key, path, rule, fix)


def _multimodal(config: Mapping[str, Any], path: str) -> UserError:
    named = _class_of(config)
    fix = "save its text part as a model of its own: see docs/families.md"
    text = config.get("text_config")
    part = text.get("model_type") if isinstance(text, dict) else None
    if part is not None and part not in (causal_families() or (part,)):
        fix = f"its text part ({part}) has no causal class in transformers: use a text-only model"
    rule = f"{named} is a multimodal model around a text model"
    return UserError("model.path", path, rule, fix)


def _class_of(config: Mapping[str, Any]) -> str:
    """Return class and `model_type` of a model: T5ForConditionalGeneration (t5)."""
    classes, family = config.get("architectures"), str(config.get("model_type"))
    return f"{classes[0]} ({family})" if isinstance(classes, list) and classes else family


def _not_causal(family: str, named: str) -> tuple[str, str]:
    """Return rule and fix for a model of class `named` in a family without a causal model."""
    if family in _families("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"):
        rule = f"{named} is an encoder-decoder model; only decoder-only models can be adapted"
        return rule, "use a model whose class ends with ForCausalLM"
    rule = f"transformers has no causal model of this type: {named}"
    return rule, "check model_type in its config.json, or install a transformers that has it"


def causal_families() -> frozenset[str]:
    """Return the `model_type` of all causal models of the installed transformers."""
    return _families("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")


@cache
def _families(mapping: str) -> frozenset[str]:
    """Return the `model_type` of all models in a mapping of the installed transformers.

    They are read from its source, since importing it takes seconds; empty if that has changed.
    """
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        return frozenset()
    source = Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py"
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return frozenset()
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if mapping in names and isinstance(node, ast.Assign):
            return frozenset(
                str(item.elts[0].value)
                for item in ast.walk(node.value)
                if isinstance(item, ast.Tuple) and isinstance(item.elts[0], ast.Constant)
            )
    return frozenset()
