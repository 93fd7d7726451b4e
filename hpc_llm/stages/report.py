"""Stage `report`: the figures of the run in summary.json, on a page and in one table."""

from typing import Any

from hpc_llm.accounting import pf_days
from hpc_llm.pipeline.context import Context
from hpc_llm.report import write_model_card, write_report
from hpc_llm.rundir import read_json, write_json

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write summary.json, report/index.html and the model card."""
    summary = summarise(context)
    write_json(context.folder.summary, summary)
    write_model_card(context.folder, context.folder.model)
    page = write_report(context.folder)
    return {"line": str(page)}


def summarise(context: Context) -> dict[str, Any]:
    """Return the figures of the run; what it did not produce is None."""
    cfg, folder = context.cfg, context.folder
    points = ["base", "transplant", *cfg.adaptation, "corrected"]
    bpb = {point: read_json(folder.path / f"evaluate/{point}.json") for point in points}
    words = (folder.finished("tokenizer") or {"result": {}})["result"]
    spent = context.account.spent
    return {
        "run": cfg.run or folder.path.name,  # sweep/number for a trial
        "recipe": cfg.recipe.name,
        "target_bpb": {point: (bpb[point]["target"] or {}).get("value") for point in points},
        "source_bpb": {point: (bpb[point]["source"] or {}).get("value") for point in points},
        "phi": read_json(folder.path / "correct/phi.json")["phi"]
        or {"value": None, "low": None, "high": None},
        "tokens_per_word": {
            side: words.get(side, {}).get("tokens_per_word") for side in ("old", "new")
        },
        "flops": spent.flops,
        "pf_days": pf_days(spent.flops),
        "gpu_hours": context.account.gpu_hours(spent.device_hours),
        "wall_seconds": round(spent.seconds, 3),
        "money": {
            "amount": context.account.money(spent.device_hours),
            "currency": context.account.hardware.currency,
        },
        "model": str(folder.model.resolve()),
    }
