"""Forward passes of a model that ZeRO-3 partitions, without an optimizer (ZeRO-Inference).

Every rank holds a share of each parameter; DeepSpeed's hooks gather a layer before its forward pass
and free it afterwards (Rajbhandari et al. 2020; Aminabadi et al. 2022, arXiv 2207.00032, section
VI). All ranks must make the same number of forward passes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from hpc_llm.distributed import Ranks
from hpc_llm.settings import TrainSettings, ZeroSettings
from hpc_llm.surgery.loading import end_division
from hpc_llm.training import process_group
from hpc_llm.training.zero import division_config

__all__ = ["gathered_by_layer", "inference_division"]


def inference_division(train: TrainSettings, zero: ZeroSettings, ranks: Ranks) -> dict[str, Any]:
    """Return the configuration that partitions a model for inference, whatever `zero.stage` is.

    There is no optimizer to offload, and no second copy of the weights in a node.
    """
    own = replace(zero, stage=3, node_partition=False)
    config = division_config(train, own, ranks)
    assert config is not None  # stage 3
    config["zero_optimization"].pop("offload_optimizer", None)
    return config


@contextmanager
def gathered_by_layer(model: torch.nn.Module, division: dict[str, Any]) -> Iterator[None]:
    """Gather each layer of a partitioned model during its forward pass (collective).

    `division` is the configuration with which the model was built; weights that are not partitioned
    yet, such as adapters, are partitioned here. All keep their types: the precision of training,
    which would round fp32 adapters, is switched off.
    """
    import deepspeed

    config = division | {"bf16": {"enabled": False}, "fp16": {"enabled": False}}
    model.eval()
    with process_group.quiet():
        engine, *_ = deepspeed.initialize(model=model, config=config)
    engine.eval()
    try:
        yield
    finally:
        engine.destroy()
        end_division()
