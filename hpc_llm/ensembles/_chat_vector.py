"""The work of compose=chat_vector: add the vector tensor by tensor, and measure it by group."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hpc_llm.ensembles._models import Siblings, open_siblings, write_model
from hpc_llm.rundir import write_json
from hpc_llm.settings import RunConfig
from hpc_llm.settings.compose import ModelsSettings

__all__ = ["Vector", "add_chat_vector"]

CHUNK = 2**22  # elements computed at once in float64
POSITIONS = ("rope_parameters", "max_position_embeddings")


def add_chat_vector(
    folder: Path, settings: ModelsSettings, weight: float, cfg: RunConfig
) -> dict[str, Any]:
    """Write `model/` and chat_vector.json into `folder`; return the entries of the record.

    Beside the embeddings, three tensors of the layers are in memory at a time.
    """
    siblings = open_siblings(settings, cfg)
    vector = Vector(weight)
    rows = {side: _rows(siblings, side, vector) for side in siblings.sides}
    outlines = [one.outline for one in (siblings.adapted, siblings.instruct, siblings.base)]
    _keep_positions(siblings)

    def tensor_of(name: str) -> torch.Tensor:
        return vector.added(name, *(outline.tensor(name) for outline in outlines))

    write_model(siblings, rows, folder / "model", outlines[0].precision, tensor_of)
    report = {"weight": weight, **siblings.report, "groups": vector.report()}
    write_json(folder / "chat_vector.json", report)
    return {**report, "line": _line(report)}


@dataclass
class _Sums:
    """Sums over the elements of a group."""

    chat: float = 0.0
    """|instruct - base|^2."""
    adaptation: float = 0.0
    """|adapted - base|^2."""
    product: float = 0.0
    """(instruct - base) (adapted - base)."""
    base: float = 0.0
    """|base|^2."""

    def as_dict(self) -> dict[str, float | None]:
        """Return the norm of the chat vector, its size relative to the base and to the adaptation.

        None for a quotient by 0.
        """
        chat, adaptation, base = map(math.sqrt, (self.chat, self.adaptation, self.base))
        return {
            "norm": chat,
            "relative_to_base": chat / base if base else None,
            "relative_to_adaptation": chat / adaptation if adaptation else None,
            "cosine_to_adaptation": self.product / (chat * adaptation)
            if chat and adaptation
            else None,
        }


@dataclass
class Vector:
    """The chat vector: adds it to tensors, and sums up its size by group of tensors."""

    weight: float
    sums: dict[str, _Sums] = field(default_factory=lambda: defaultdict(_Sums))

    def added(
        self, name: str, adapted: torch.Tensor, instruct: torch.Tensor, base: torch.Tensor
    ) -> torch.Tensor:
        """Return `adapted` + weight * (`instruct` - `base`), in the precision of `adapted`.

        Computed in float64. Where `instruct` equals `base` the result is `adapted`, and where
        `adapted` equals `base` and the weight is 1 it is `instruct`, bit for bit.
        """
        result = torch.empty_like(adapted)
        sums = self.sums[_group(name)]
        flat = (tensor.reshape(-1).split(CHUNK) for tensor in (result, adapted, instruct, base))
        for out, *parts in zip(*flat, strict=True):
            c, s, b = (part.double() for part in parts)
            chat, adaptation = s - b, c - b
            sums.chat += float(chat @ chat)
            sums.adaptation += float(adaptation @ adaptation)
            sums.product += float(chat @ adaptation)
            sums.base += float(b @ b)
            # c + (s - b) is rounded for b much larger than s; lerp is exact at both ends
            out.copy_(torch.where(adaptation == 0, b.lerp(s, self.weight), c + self.weight * chat))
        return result

    def report(self) -> dict[str, dict[str, float | None]]:
        """Return the sizes of the vector by group of tensors, and of all of them."""
        groups = {name: sums.as_dict() for name, sums in sorted(self.sums.items())}
        return groups | {"all": _total(self.sums.values()).as_dict()}


def _total(parts: Iterable[_Sums]) -> _Sums:
    total = _Sums()
    for part in parts:
        total = _Sums(**{key: value + getattr(part, key) for key, value in vars(total).items()})
    return total


def _group(name: str) -> str:
    """Return the part of a tensor's name after the number of its layer; outside, its module.

    self_attn for model.layers.3.self_attn.q_proj.weight, norm for model.norm.weight.
    """
    parts = name.split(".")[:-1] or [name]
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    after = parts[numbers[0] + 1 :] if numbers else parts[-1:]
    return after[0] if after else parts[-1]


def _rows(siblings: Siblings, side: str, vector: Vector) -> torch.Tensor:
    """Return the new rows of a side (vocab, d) in fp32.

    All rows change where the adapted model keeps the vocabulary of the base, else those of the
    tokens that both have.
    """
    adapted, instruct, base = (
        one.rows(side) for one in (siblings.adapted, siblings.instruct, siblings.base)
    )
    name = f"{side}_rows."
    if siblings.keeps_vocabulary:
        return vector.added(name, adapted, instruct[: len(base)], base)
    new, old = torch.tensor(siblings.tokens.anchors, dtype=torch.long).reshape(-1, 2).T
    result = adapted.clone()
    result[new] = vector.added(name, adapted[new], instruct[old], base[old])
    return result


def _keep_positions(siblings: Siblings) -> None:
    """Keep positions that the adaptation has stretched: `model.rope_scaling`."""
    base, instruct, adapted = (
        one.model.config.get_text_config()
        for one in (siblings.base, siblings.instruct, siblings.adapted)
    )
    for name in POSITIONS:
        if getattr(adapted, name, None) != getattr(base, name, None):
            setattr(instruct, name, getattr(adapted, name))


def _line(report: dict[str, Any]) -> str:
    whole = report["groups"]["all"]
    return (
        f"weight {report['weight']:g}: norm {whole['norm']:.4g}, "
        f"{_figure(whole['relative_to_base'])} of the base, "
        f"{_figure(whole['relative_to_adaptation'])} of the adaptation, cosine "
        f"{_figure(whole['cosine_to_adaptation'])}"
    )


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3g}"
