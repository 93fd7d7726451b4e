"""What is measured on held-out text: bits per byte, the merging factor, forgetting, samples.

The modules that need torch are imported by name (`hpc_llm.evaluation.bits_per_byte`,
`.lora_scale`, `.samples`); the statistics below need numpy only.
"""

from hpc_llm.evaluation.bootstrap import Interval
from hpc_llm.evaluation.forgetting import delta_bpb, relative_drop
from hpc_llm.evaluation.merging_factor import PhiChoice, choose_phi

__all__ = ["Interval", "PhiChoice", "choose_phi", "delta_bpb", "relative_drop"]
