"""Evaluation: bits per byte, forgetting, the merging factor, samples, benchmark tasks.

The modules that need torch are imported by name (`hpc_llm.evaluation.bits_per_byte`,
`.lora_scale`, `.samples`, `.tasks.scorer`); the statistics below need numpy only.
"""

from hpc_llm.evaluation.bootstrap import DocumentLosses, Interval
from hpc_llm.evaluation.forgetting import delta_bpb, relative_drop
from hpc_llm.evaluation.measures import Measure
from hpc_llm.evaluation.merging_factor import PhiChoice, choose_phi

__all__ = [
    "DocumentLosses",
    "Interval",
    "Measure",
    "PhiChoice",
    "choose_phi",
    "delta_bpb",
    "relative_drop",
]
