"""Adapts a pretrained LLM to a new language on Slurm clusters, with exact cost accounting.

The command is `hpc-llm VERB [Hydra overrides]`; `hpc-llm --help` lists the verbs.
"""

__version__ = "0.1.0"
