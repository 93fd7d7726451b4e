"""What the fork server of `forked.py` holds when it forks: slow imports, composed settings."""

import matplotlib.figure  # noqa: F401
from tiny import settings, stage_of

import hpc_llm.pipeline.runner
import hpc_llm.stages.correct
import hpc_llm.stages.evaluate
import hpc_llm.stages.pretrain
import hpc_llm.stages.report
import hpc_llm.stages.tokenizer
import hpc_llm.stages.train
import hpc_llm.stages.transplant  # noqa: F401
from hpc_llm.methods import method_names

settings("experiment=example")
for name in method_names():
    stage_of(name)
