"""Compose `conf/` and the command line into a `RunConfig`; the only package that uses Hydra."""

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
