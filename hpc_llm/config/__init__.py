"""The only package that imports Hydra: `conf/` and the command line become a `RunConfig`."""

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
