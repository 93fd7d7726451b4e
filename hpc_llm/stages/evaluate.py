"""Stage `evaluate/<point>`: bits per byte on held-out text of both languages at one point."""

from dataclasses import asdict
from typing import Any

from hpc_llm.evaluation.bits_per_byte import measure_bpb
from hpc_llm.evaluation.samples import continue_texts
from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import write_json
from hpc_llm.stages.assemble import model_after
from hpc_llm.stages.texts import encoder, first_token, heldout
from hpc_llm.surgery.loading import load_tokenizer

__all__ = ["run"]

PROMPTS, PROMPT_WORDS, SAMPLE_TOKENS = 3, 6, 80


def run(context: Context, name: str) -> dict[str, Any]:
    """Write evaluate/<point>.json: BPB with its interval for each language, on test documents."""
    cfg, point = context.cfg, name.split("/")[1]
    model = model_after(context, point)
    where = context.base if point == "base" else context.stage_folder("tokenizer")
    tokenizer = load_tokenizer(where, cfg.model)
    result: dict[str, Any] = {}
    for language in ("target", "source"):
        texts = heldout(context, language, "test")
        if not texts:
            result[language] = None
            continue
        bpb = measure_bpb(
            model,
            encoder(tokenizer),
            texts,
            cfg.evaluation,
            first_token(tokenizer),
            cfg.seed,
        )
        fields = ("value", "low", "high", "bytes")
        result[language] = {key: asdict(bpb)[key] for key in fields} | {"documents": len(texts)}
    if point == "corrected":
        result["samples"] = _samples(context, model, tokenizer)
    metrics = {
        f"{lang}/bpb": result[lang]["value"] for lang in ("target", "source") if result[lang]
    }
    result["line"] = "  ".join(f"{key.replace('/', ' ')} {v:.4f}" for key, v in metrics.items())
    write_json(context.folder.path / f"{name}.json", result)
    context.events.append("evaluate", stage=point, axes={}, metrics=metrics)
    return result


def _samples(context: Context, model: Any, tokenizer: Any) -> list[dict[str, str]]:
    """Let the model go on from the first words of a few held-out documents."""
    texts = heldout(context, "target", "test")[:PROMPTS]
    prompts = [" ".join(text.split()[:PROMPT_WORDS]) for text in texts]
    continued = continue_texts(model, tokenizer, prompts, SAMPLE_TOKENS)
    return [
        {"prompt": prompt, "text": text, "stage": "corrected"}
        for prompt, text in zip(prompts, continued, strict=True)
    ]
