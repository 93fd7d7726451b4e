"""One side of a model, input embedding or LM head: its new rows, and the report about them."""

import time
from dataclasses import replace
from typing import Any

import torch

from hpc_llm.errors import UserError
from hpc_llm.vocabulary.initial import Initialisation, initialisation
from hpc_llm.vocabulary.rows import NewTokens
from hpc_llm.vocabulary.solvers import quantiles

__all__ = ["new_rows", "new_side"]


def new_side(
    rows: torch.Tensor, tokens: NewTokens, name: str
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return the new rows (vocab_n, d) by the initialisation `name`, and the report.

    `rows` are the old ones (vocab_o, d). The report has the number of rows by source, the 5 %, 50 %
    and 95 % quantiles of norms, the seconds, and what the initialisation reports of its fit.
    """
    began = time.perf_counter()
    tokens = replace(tokens, report={})
    result = new_rows(rows, tokens, initialisation(name))
    sources = tokens.report.pop("sources", {name: len(tokens.ids)})
    special = len(tokens.special)
    counts = {"copied": len(tokens.anchors) - special, "special": special, **sources}
    copied = torch.tensor([old_id for _, old_id in tokens.anchors], dtype=torch.long)
    old_norms = _norms(rows)
    norms = {"old": old_norms, "copied": old_norms[copied], "new": _norms(result)[tokens.ids]}
    report = {
        "initialisation": name,
        "sources": {source: count for source, count in counts.items() if count},
        "norms": {key: quantiles(values.numpy()) for key, values in norms.items()},
        **tokens.report,
        "seconds": round(time.perf_counter() - began, 3),
    }
    return result, report


def _norms(rows: torch.Tensor) -> torch.Tensor:
    """Return the lengths (n,) of rows (n, d), in fp32."""
    return torch.linalg.vector_norm(rows.detach(), dim=1, dtype=torch.float32)


def new_rows(rows: torch.Tensor, tokens: NewTokens, initial: Initialisation) -> torch.Tensor:
    """Return the new rows (vocab_n, d) in the precision of the old `rows` (vocab_o, d).

    Anchors are copied; the rows of new tokens are computed in fp32 by `initial`.
    """
    old = rows.detach().float()
    result = torch.empty(tokens.size, old.shape[1], dtype=old.dtype, device=old.device)
    if tokens.anchors:
        new_ids, old_ids = torch.tensor(tokens.anchors).T
        result[new_ids] = old[old_ids]
    if tokens.ids:
        result[tokens.ids] = _checked(
            initial(old, tokens), (len(tokens.ids), old.shape[1]), initial
        )
    return result.to(rows.dtype)


def _checked(rows: torch.Tensor, shape: tuple[int, int], initial: Initialisation) -> torch.Tensor:
    """Return the new rows. Raises `UserError` for another `shape` (n, d), NaN and infinity."""
    name = str(getattr(initial, "__module__", initial)).rsplit(".", 1)[-1]
    if tuple(rows.shape) != shape:
        rule = f"returned rows of shape {tuple(rows.shape)}, must be {shape}"
        raise UserError("initialisation", name, rule)
    if not torch.isfinite(rows).all():
        rule = "returned NaN or infinite values"
        raise UserError("initialisation", name, rule, "check it, and the base model's embeddings")
    return rows
