"""Stage `report`: write the results of the run to summary.json, a page and the model card."""

from typing import Any

from hpc_llm.accounting import pf_days
from hpc_llm.evaluation.measures import language_columns
from hpc_llm.pipeline.context import Context
from hpc_llm.report import by_name, read_measures, uncharged_stages, write_model_card, write_report
from hpc_llm.rundir import read_json, write_json
from hpc_llm.vocabulary.modes import mode_of

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write summary.json, report/index.html and the model card."""
    summary = summarise(context)
    if stages := uncharged_stages(context.folder, without=name):
        summary["not_in_ledger"] = stages
    write_json(context.folder.summary, summary)
    write_model_card(context.folder, context.folder.model)
    page = write_report(context.folder)
    return {"line": str(page)}


def summarise(context: Context) -> dict[str, Any]:
    """Return the results of the run; missing ones are None."""
    cfg, folder = context.cfg, context.folder
    points = ["base", "transplant", *cfg.adaptation, "corrected"]
    files = {point: folder.path / f"evaluate/{point}.json" for point in points}
    words = _result(context, "tokenizer")
    spent = context.account.spent
    return {
        "run": cfg.run or folder.path.name,  # sweep/number for a trial
        "recipe": cfg.recipe.name,
        "measures": by_name({point: read_measures(path) for point, path in files.items()}),
        **language_columns({point: read_json(path) for point, path in files.items()}),
        "phi": read_json(folder.path / "correct/phi.json")["phi"]
        or {"value": None, "low": None, "high": None},
        "vocabulary": {"mode": cfg.transplant.mode, "changed": mode_of(cfg).changes},
        "tokens_per_word": {side: words[side]["tokens_per_word"] for side in ("old", "new")},
        "tokens_per_character": {
            side: words[side].get("tokens_per_character") for side in ("old", "new")
        },
        "tokenizer": by_name(_result(context, "evaluate/tokenizer").get("tokenizers", {})),
        "token_ratio": words["token_ratio"],
        "flops": spent.flops,
        "pf_days": pf_days(spent.flops),
        "gpu_hours": context.account.gpu_hours(spent.device_hours),
        "wall_seconds": round(spent.seconds, 3),
        "stage_seconds": {stage: done["seconds"] for stage, done in folder.records().items()},
        "money": {
            "amount": context.account.money(spent.device_hours),
            "currency": context.account.hardware.currency,
        },
        "model": str(folder.model.resolve()),
    }


def _result(context: Context, stage: str) -> dict[str, Any]:
    """Return the result of a stage that the report needs, and that is thus finished."""
    record = context.folder.finished(stage)
    assert record is not None
    result: dict[str, Any] = record["result"]
    return result
