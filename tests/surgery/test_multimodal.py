"""Models with an encoder beside the text model: refused with what to do, which is then tried."""

import re
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from errors import user_error
from transformers import AutoModelForImageTextToText, PreTrainedConfig
from transformers.models.auto import CONFIG_MAPPING

from hpc_llm.surgery.families import check_family
from hpc_llm.surgery.folders import check_base
from hpc_llm.surgery.loading import load_model, load_tokenizer

PAGE = Path(__file__).resolve().parents[2] / "docs/families.md"
SIZES: dict[str, Any] = {
    "vocab_size": families.ROWS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def multimodal(family: str, **text: Any) -> PreTrainedConfig:
    """Return a tiny configuration of a multimodal family."""
    vision = VISION | {"model_type": "pixtral"} if family == "mistral3" else VISION
    config: PreTrainedConfig = CONFIG_MAPPING[family](
        text_config=SIZES | text, vision_config=vision
    )
    return config


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("gemma3", {"model_type": "gemma3_text", "head_dim": 8}),
        ("llava", {"model_type": "llama"}),
        ("mistral3", {"model_type": "mistral", "head_dim": 8}),
        ("smolvlm", {"model_type": "llama"}),
    ],
)
def test_the_documented_lines_save_the_text_part(
    family: str, text: dict[str, Any], tmp_path: Path, default_config: Any
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(multimodal(family, **text)).eval()
    model.save_pretrained(whole)
    families.tokenizer(families.ROWS, 0).save_pretrained(whole)
    with user_error("model.path", type(model).__name__, "docs/families.md", value=str(whole)):
        check_base(str(whole))
    [lines] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert lines.count("google/gemma-3-4b-pt") == 2
    lines = lines.replace("google/gemma-3-4b-pt", str(whole)).replace("gemma-3-4b-text", str(part))
    exec(lines, {})
    check_base(str(part))
    ids = torch.arange(5, 25)[None]
    found = load_model(part, default_config.model, "fp32").eval()
    assert len(load_tokenizer(part, default_config.model)) <= families.ROWS
    torch.testing.assert_close(found(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("config", "mentions"),
    [
        (
            {
                "model_type": "qwen2_vl",
                "vision_config": VISION,
                "text_config": {"model_type": "qwen2_vl_text"},
            },
            ["qwen2_vl_text", "text-only"],
        ),
        (
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
            ["T5ForConditionalGeneration", "encoder-decoder", "ForCausalLM"],
        ),
        ({"model_type": "mt5"}, ["mt5", "encoder-decoder"]),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, ["vit", "ViTModel"]),
        ({"model_type": "vit", "architectures": 5}, ["vit"]),
    ],
)
def test_models_without_a_causal_class_are_named(
    config: dict[str, Any], mentions: list[str]
) -> None:
    with user_error("model.path", *mentions, value="models/x"):
        check_family(config, "models/x")
