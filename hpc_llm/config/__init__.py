"""Compose `conf/` and the command line into a `RunConfig`; only this package imports Hydra."""

from hpc_llm.config.compose import (
    as_yaml,
    combinations,
    compose,
    differences,
    load,
    swept_keys,
    typed,
    write,
)
from hpc_llm.config.laptop import refuse_laptop_defaults

__all__ = [
    "as_yaml",
    "combinations",
    "compose",
    "differences",
    "load",
    "refuse_laptop_defaults",
    "swept_keys",
    "typed",
    "write",
]
