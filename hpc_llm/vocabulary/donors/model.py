"""transplant.donor.kind=model: the input embeddings of a sibling model, matched by string.

The sibling, `transplant.donor.path`, has the new tokens or most of them: a model that was adapted
to the language before. Its rows, centred, are rotated onto their principal axes.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hpc_llm.errors import UserError
from hpc_llm.settings import DonorSettings, ModelSettings
from hpc_llm.vocabulary.donors import Donor

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["check", "vectors"]

KEY = "transplant.donor.path"
FEWEST = 0.5  # share of the new tokens that the sibling must have


def check(settings: DonorSettings) -> None:
    """Raise `UserError` without a folder or hub id."""
    if settings.path is None:
        rule, fix = "transplant.donor.kind=model needs it", "set it to a model folder or a hub id"
        raise UserError(KEY, None, rule, fix)


def vectors(
    text: "Iterable[np.ndarray]",
    surfaces: Sequence[bytes | None],
    dimensions: int,
    settings: DonorSettings,
) -> Donor:
    """Return the sibling's embeddings of the tokens that it has.

    Raises `UserError` if it lacks more than half of the tokens.
    """
    import numpy as np

    from hpc_llm.vocabulary.donors._vectors import by_importance, count_tokens

    ids, rows = _sibling(settings)
    theirs = np.array([-1 if text is None else ids.get(text, -1) for text in surfaces])
    known, plain = theirs >= 0, sum(text is not None for text in surfaces)
    if known.sum() < FEWEST * plain:
        rule = f"its tokenizer has {known.sum() / max(1, plain):.0%} of the {plain:,} new tokens"
        raise UserError(KEY, settings.path, rule, "use a sibling that has most of them")
    found = np.zeros((len(surfaces), rows.shape[1]), np.float32)
    found[known] = rows.numpy()[theirs[known]]
    found[known] -= found[known].mean(0)
    counts = count_tokens(text, len(surfaces), settings.max_tokens)
    return Donor(by_importance(found, known, dimensions), counts, known)


def _sibling(settings: DonorSettings) -> "tuple[dict[bytes, int], torch.Tensor]":
    """Return the ids of the sibling's tokens by text, and its input embeddings (vocab, d), fp32."""
    from hpc_llm.surgery.loading import load_model, load_tokenizer
    from hpc_llm.surgery.outline import NotStreamed, open_outline
    from hpc_llm.vocabulary.surfaces import surfaces as surfaces_of

    path = str(settings.path)
    plain = ModelSettings(
        name=None, path=path, revision=None, trust_remote_code=False, attention="auto",
        architecture=None,
    )  # fmt: skip
    try:
        outline = open_outline(path, plain, "fp32")
        outline.load_ends()
        model = outline.model
    except NotStreamed:
        model = load_model(path, plain, "fp32")
    rows = model.get_input_embeddings().weight.detach()
    found = surfaces_of(load_tokenizer(path, plain))[: len(rows)]
    ids = {one.text: i for i, one in reversed(list(enumerate(found))) if one is not None}
    return ids, rows
