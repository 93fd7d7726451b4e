"""Count the costs of planned stages on a model without weights: a program of its own.

`plan` runs it for families without a closed form, since it must not import torch itself. It reads a
JSON object from the standard input and writes one to the standard output; see
`hpc_llm.planning.counted`.
"""

import json
import sys
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from hpc_llm.accounting import StageFlops
from hpc_llm.errors import UserError
from hpc_llm.methods import settings_of
from hpc_llm.settings import StageSettings
from hpc_llm.surgery.loading import quiet_transformers
from hpc_llm.surgery.trainable import make_trainable, not_adapted
from hpc_llm.training.counting import CannotCount, active_parameters, count_costs

__all__ = ["count_stage", "main"]


def _model(config: dict[str, Any], vocab_size: int) -> PreTrainedModel:
    """Build a causal model without weights. Raises `UserError` for an invalid configuration."""
    values = dict(config)
    kind = values.pop("model_type", None)
    try:
        built = AutoConfig.for_model(kind, **values)
        built.get_text_config().vocab_size = vocab_size
        with torch.device("meta"), no_init_weights():
            model = AutoModelForCausalLM.from_config(built).train()
        model.tie_weights()  # omitted with the initialisation
        return model
    except Exception as error:  # the classes raise anything for sizes that do not fit together
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        rule = f"transformers cannot build a model of it: {text}"
        raise UserError("model_type", kind, rule, "compare it with the model's own file") from error


def _costs(model: torch.nn.Module, length: int) -> StageFlops:
    try:
        return count_costs(model, length)
    except CannotCount:
        return StageFlops.estimated(active_parameters(model), length)


def count_stage(
    config: dict[str, Any], vocab_size: int, stage: StageSettings | None, length: int
) -> dict[str, Any]:
    """Return the costs of a stage (None: full training) as JSON values.

    `length` is that of a sequence in tokens. Raises `UserError` for a model that transformers
    cannot build, and for adapter targets that it does not have.
    """
    found: dict[str, Any] = {}
    for recompute in (False, True) if stage is not None else (False,):
        model = _model(config, vocab_size)
        inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
        sizes = {
            "total": sum(p.numel() for p in model.parameters()),
            "embedding": inputs.weight.numel(),
            "head": 0 if head.weight is inputs.weight else head.weight.numel(),
            "active": active_parameters(model),
        }
        trained: torch.nn.Module = model
        if stage is not None:
            what = make_trainable(model, stage, recompute, 1)
            trained = what.model
            found |= {
                "trainable": what.count,
                "without_adapters": not_adapted(what) if what.adapters else [],
            }
        costs = _costs(trained, length)
        names = ("per_token", "per_square", "per_position", "per_squared_width", "source")
        found |= {"sizes": sizes}
        found["recomputed" if recompute else "plain"] = {n: str(getattr(costs, n)) for n in names}
    return found


def main() -> int:
    """Answer one request."""
    quiet_transformers()
    asked = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {}
        for name, (vocab_size, method, values) in asked["stages"].items():
            stage = None if method is None else settings_of(method, f"stages.{name}")(**values)
            answer[name] = count_stage(asked["config"], vocab_size, stage, asked["length"])
    except UserError as error:
        key = f"stages.{name}.{error.key}" if error.key == "target_parameters" else error.key
        fields = (key, error.value, error.rule, error.fix)
        answer = {"error": [None if field is None else str(field) for field in fields]}
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
