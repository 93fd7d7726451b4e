"""One side of a model, input embedding or LM head: its new rows, and the report about them."""

import time
from dataclasses import replace
from typing import Any

import torch

from hpc_llm.errors import UserError
from hpc_llm.vocabulary.initial import Initialisation, initialisation
from hpc_llm.vocabulary.rows import NewTokens
from hpc_llm.vocabulary.solvers import quantiles
from hpc_llm.vocabulary.statistics import norms_of

__all__ = ["new_rows", "new_side"]

CHUNK = 4096  # rows copied at a time


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
    old_norms = norms_of(rows)
    norms = {"old": old_norms, "copied": old_norms[copied], "new": norms_of(result)[tokens.ids]}
    report = {
        "initialisation": name,
        "sources": {source: count for source, count in counts.items() if count},
        "norms": {key: quantiles(values.numpy()) for key, values in norms.items()},
        **tokens.report,
        "seconds": round(time.perf_counter() - began, 3),
    }
    return result, report


def new_rows(rows: torch.Tensor, tokens: NewTokens, initial: Initialisation) -> torch.Tensor:
    """Return the new rows (vocab_n, d) in the precision of the old `rows` (vocab_o, d).

    Anchors are copied, the rows of new tokens are those of `initial`.
    """
    old = rows.detach()
    result = old.new_empty(tokens.size, old.shape[1])
    for begin in range(0, len(tokens.anchors), CHUNK):
        new_ids, old_ids = torch.tensor(tokens.anchors[begin : begin + CHUNK]).T
        result[new_ids] = old[old_ids]
    if not tokens.ids:
        return result
    found = initial(old, tokens)
    shape = (len(tokens.ids), old.shape[1])
    if tuple(found.shape) != shape:
        raise _refused(initial, f"returned rows of shape {tuple(found.shape)}, must be {shape}")
    for begin in range(0, len(found), CHUNK):
        part = found[begin : begin + CHUNK]
        if not torch.isfinite(part).all():
            raise _refused(initial, "returned NaN or infinite values")
        result[tokens.ids[begin : begin + CHUNK]] = part.to(result.dtype)
    return result


def _refused(initial: Initialisation, rule: str) -> UserError:
    """Return the error about the rows of an initialisation."""
    name = str(getattr(initial, "__module__", initial)).rsplit(".", 1)[-1]
    return UserError("initialisation", name, rule, "check it, and the base model's embeddings")
