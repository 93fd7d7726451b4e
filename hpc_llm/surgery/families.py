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
    "dots3_note": PER_TOKEN,
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
        raise UserError(
            key,
            path,
            f"{family} is a multimodal model around a text model",
            "save its text part (config.get_text_config()) as a model of its own: see "
            "docs/families.md",
        )
    known = causal_families()
    if known and family not in known and not config.get("auto_map"):
        fix = "check model_type in its config.json, or install a transformers that has it"
        raise UserError(key, path, f"transformers has no causal model of type {family}", fix)


@cache
def causal_families() -> frozenset[str]:
    """Return the `model_type` of all causal models of the installed transformers.

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
        if "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES" in names and isinstance(node, ast.Assign):
            return frozenset(
                str(item.elts[0].value)
                for item in ast.walk(node.value)
                if isinstance(item, ast.Tuple) and isinstance(item.elts[0], ast.Constant)
            )
    return frozenset()
