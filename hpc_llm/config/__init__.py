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
from hpc_llm.config.words import override_key

__all__ = [
    "as_yaml",
    "combinations",
    "compose",
    "differences",
    "load",
    "override_key",
    "refuse_laptop_defaults",
    "swept_keys",
    "typed",
    "write",
]
