"""Costs of stages whose model has no closed form: counted on the model by a program of its own.

`plan` itself never imports torch; the program takes some seconds.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from hpc_llm.accounting.architecture import ParameterCount
from hpc_llm.accounting.stage_flops import StageFlops
from hpc_llm.errors import UserError
from hpc_llm.settings import StageSettings

__all__ = ["CountedStage", "count_stages"]

PROGRAM = "hpc_llm.training.counted_plan"
FULL = "full training of {} rows"  # no name of a stage: it has spaces
COEFFICIENTS = ("per_token", "per_square", "per_position", "per_squared_width")


@dataclass(frozen=True, kw_only=True)
class CountedStage:
    """Counts of one training stage."""

    parameters: ParameterCount
    """Of the model; norms are not told apart and counted as 0."""
    trainable: int
    """Trainable parameters."""
    without_adapters: tuple[str, ...]
    """Stacked expert weights that have no adapter."""
    plain: StageFlops
    """Costs without recomputation."""
    recomputed: StageFlops
    """Costs with recomputation."""
    full: StageFlops
    """Costs of full training, without recomputation."""

    def flops(self, recompute: bool) -> StageFlops:
        """Return the costs with or without recomputation."""
        return self.recomputed if recompute else self.plain


def count_stages(
    config: Mapping[str, Any], stages: Mapping[str, tuple[int, StageSettings]], length: int
) -> dict[str, CountedStage]:
    """Count `stages` (vocabulary size and settings by name) in sequences of `length` tokens.

    `config` is the model's `config.json`. Raises `UserError` for a model that cannot be built and
    for settings that do not fit it.
    """
    asked: dict[str, Any] = {
        name: (size, stage.method, asdict(stage)) for name, (size, stage) in stages.items()
    }
    asked |= {FULL.format(size): (size, None, {}) for size, _ in stages.values()}
    request = {"config": dict(config), "stages": asked, "length": length}
    command = [sys.executable, "-P", "-m", PROGRAM]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        rule = f"its costs cannot be counted: {last}"
        raise UserError("model_type", config.get("model_type"), rule)
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise UserError(*answer["error"])
    return {
        name: _stage(answer[name], answer[FULL.format(size)], length)
        for name, (size, _) in stages.items()
    }


def _stage(found: Mapping[str, Any], full: Mapping[str, Any], length: int) -> CountedStage:
    sizes = found["sizes"]
    body = sizes["total"] - sizes["embedding"] - sizes["head"]
    return CountedStage(
        parameters=ParameterCount(**sizes, body=body, norms=0),
        trainable=found["trainable"],
        without_adapters=tuple(found["without_adapters"]),
        plain=_flops(found["plain"], sizes["active"], length),
        recomputed=_flops(found["recomputed"], sizes["active"], length),
        full=_flops(full["plain"], sizes["active"], length),
    )


def _flops(found: Mapping[str, str], active: int, length: int) -> StageFlops:
    values = {name: Fraction(found[name]) for name in COEFFICIENTS}
    whole = values["per_position"] * length + values["per_squared_width"] * length**2
    return StageFlops(
        **values, hardware_per_sequence=int(whole), six_n=6 * active, source=found["source"]
    )
