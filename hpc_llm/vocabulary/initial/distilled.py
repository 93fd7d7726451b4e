"""transplant.input=distilled: train new rows so that hidden states equal those of the old tokens.

Token Distillation (Dobler, Elliott and de Melo 2025, arXiv 2505.20133). The teacher is the base
model on the old tokens of a context, the student the same model with the new tokens; only the rows
of new tokens are trainable. With H_l the hidden states behind layer l and e(j) the last old token
that spells token j of the student, the loss of a context is the mean over all j but the first of
|H_l(student)_j - H_l(teacher)_e(j)|^2, here divided by the mean of |H_l(teacher)|^2.

One difference: the paper replaces one new token in a context, and all others stay in old tokens;
here all are replaced. A context then trains all its new tokens, and under the text that the adapted
model will read, in which the old tokens of a replaced vocabulary no longer exist. For equal updates
that gave lower errors, also on contexts with one token replaced (docs/initialisation.md).

Rows start at `transplant.distilled.start`. The LM head of a model whose embeddings are not tied
gets `transplant.distilled.output`. The layers must be in memory.
"""

import torch

from hpc_llm.errors import UserError
from hpc_llm.surgery.outline import NotStreamed
from hpc_llm.vocabulary.contexts import sample_contexts
from hpc_llm.vocabulary.distillation import Distillation
from hpc_llm.vocabulary.initial import initialisation
from hpc_llm.vocabulary.rows import NewTokens

__all__ = ["rows"]


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d)."""
    settings = tokens.settings.distilled
    if tokens.inputs is not None:
        tokens.report["sources"] = {settings.output: len(tokens.ids)}  # unless it reports its own
        return initialisation(settings.output)(old, tokens)
    model = tokens.model
    if model is not None and any(parameter.is_meta for parameter in model.parameters()):
        raise NotStreamed("distilled runs the layers of the model")
    start = initialisation(settings.start)(old, tokens)
    if not tokens.ids:
        return start
    contexts = sample_contexts(tokens, settings.context, settings.contexts)
    if model is None or not len(contexts):
        rule = "needs the base model, and target text with new tokens"
        raise UserError("transplant.input", "distilled", rule, f"use {settings.start}")
    run = Distillation(model, old, start, tokens, contexts)
    tokens.report["sources"] = {"distilled": run.seen, settings.start: len(start) - run.seen}
    tokens.report["distillation"] = run.train()
    return run.rows
