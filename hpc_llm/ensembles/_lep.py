"""The work of compose=lep: fit P on each side, write the model and how well P fits."""

from pathlib import Path
from typing import Any

import torch

from hpc_llm.ensembles._models import Siblings, open_siblings, write_model
from hpc_llm.rundir import write_json
from hpc_llm.settings import RunConfig
from hpc_llm.settings.compose import ModelsSettings
from hpc_llm.vocabulary.lep import Propagation, fit_propagation, propagate
from hpc_llm.vocabulary.rows import mean_of_pieces
from hpc_llm.vocabulary.sides import new_rows

__all__ = ["propagate_embeddings"]


def propagate_embeddings(
    folder: Path, settings: ModelsSettings, variant: str, cfg: RunConfig
) -> dict[str, Any]:
    """Write `model/` and lep.json into `folder`; return the entries of the record.

    In memory are, of each side in turn, five matrices (vocab, d) in fp32, beside the embeddings of
    the models.
    """
    siblings = open_siblings(settings, cfg)
    rows, sides = {}, {}
    for side in siblings.sides:
        rows[side], sides[side] = _propagated(siblings, side, variant)
    write_model(siblings, rows, folder / "model", siblings.instruct.outline.precision)
    report = {
        "variant": variant,
        "tied": siblings.instruct.is_tied,
        **siblings.report,
        "sides": {side: found for side, found in sides.items() if found},
    }
    write_json(folder / "lep.json", report)
    return {**report, "line": _line(report)}


def _propagated(
    siblings: Siblings, side: str, variant: str
) -> tuple[torch.Tensor, dict[str, Any] | None]:
    """Return the new rows of a side (vocab_n, d), and how well P fits; None without a fit."""
    adapted, tokens = siblings.adapted.rows(side), siblings.tokens
    base = new_rows(siblings.base.rows(side), tokens, mean_of_pieces)  # T E_b (vocab_n, d)
    instruct = new_rows(siblings.instruct.rows(side), tokens, mean_of_pieces)  # T E_s
    found = None
    if side == "bias":  # one number per token: there is nothing to map it with
        result = adapted.clone()
        if variant != "swap":
            result[: len(base)] += instruct - base
    else:
        ids = sorted(new for new, _ in tokens.anchors) if variant == "overlap" else None
        rows = None if ids is None else torch.tensor(ids)
        fit = fit_propagation(base, instruct, rows)
        found = _fit_report(fit, variant)
        result = adapted if variant == "swap" else propagate(adapted, fit)
    kept = [(new, old) for new, old in siblings.special if new < len(result)]
    news, olds = (torch.tensor(ids, dtype=torch.long) for ids in zip(*kept, strict=True))
    result = result.clone()
    result[news] = siblings.instruct.rows(side)[olds]
    return result, found


def _fit_report(fit: Propagation, variant: str) -> dict[str, Any]:
    """Return the fit as JSON; of a swap, which uses P = I, only what that leaves."""
    identity = {"rows": fit.rows, "identity_residual": fit.identity_residual}
    if variant == "swap":
        return identity
    return identity | {
        "width": len(fit.change),
        "rank": fit.rank,
        "residual": fit.residual,
        "held_out_residual": fit.held_out_residual,
    }


def _line(report: dict[str, Any]) -> str:
    parts = []
    for side, found in report["sides"].items():
        residual = found.get("residual", found["identity_residual"])
        text = f"{side} residual {residual:.3f}"
        if (held := found.get("held_out_residual")) is not None:
            text += f" (held-out {held:.3f}, without P {found['identity_residual']:.3f})"
        if found.get("rank", 0) < found.get("width", 0):
            text += f", rank {found['rank']} of {found['width']}"
        parts.append(text)
    return f"{report['variant']}: {'; '.join(parts)}"
