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

__all__ = [
    "as_yaml",
    "combinations",
    "compose",
    "differences",
    "load",
    "swept_keys",
    "typed",
    "write",
]
