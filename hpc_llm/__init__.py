"""hpc_llm brings a foundation model to a new language and reports its cost.

The command is `hpc-llm VERB [Hydra overrides]`; `hpc-llm --help` lists the verbs.
"""

__version__ = "0.1.0"
