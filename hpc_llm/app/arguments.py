"""Parse the command line: a verb, a few flags, and overrides, which are left to Hydra."""

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from hpc_llm.app.verbs import VERBS
from hpc_llm.distributed import Ranks
from hpc_llm.errors import UserError

__all__ = ["Arguments", "parse", "refuse_flags", "refuse_ranks"]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The parsed command line."""

    verb: str | None
    overrides: list[str]
    help: bool
    version: bool
    show_config: bool
    """--cfg job: print the configuration and exit."""
    config: str | None
    """--config FILE: load a resolved configuration instead of composing one."""
    multirun: bool
    """-m: sweep over all combinations of comma-separated values."""
    stages: list[str] | None
    """--stages A,B: run only these stages of the verb."""
    keep: str | None
    """--keep SIZE of `cache`: remove the oldest entries down to this size."""
    follow: bool
    """-f: follow the logs."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError("command line", None, message, "see hpc-llm --help")


def parse(argv: list[str]) -> Arguments:
    """Parse the command line. Raises `UserError` for unknown verbs and flags."""
    parser = _Parser(prog="hpc-llm", add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--cfg", choices=["job"])
    parser.add_argument("--config")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--stages")
    parser.add_argument("--keep")
    parser.add_argument("--follow", "-f", action="store_true")
    # some launchers add it; the environment has the same value
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)
    found = parser.parse_intermixed_args(argv)
    words = found.words
    if words and "=" in words[0]:
        raise UserError(
            words[0],
            None,
            f"the verb must come first, for example hpc-llm adapt {words[0]}",
        )
    return Arguments(
        verb=_known_verb(words[0]) if words else None,
        overrides=words[1:],
        help=found.help,
        version=found.version,
        show_config=found.cfg is not None,
        config=found.config,
        multirun=found.multirun,
        stages=found.stages.split(",") if found.stages is not None else None,
        keep=found.keep,
        follow=found.follow,
    )


def _known_verb(word: str) -> str:
    if word in VERBS:
        return word
    near = difflib.get_close_matches(word, VERBS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(VERBS)}"
    raise UserError(
        word,
        None,
        "no such verb",
        hint,
    )


def refuse_flags(arguments: Arguments, flags: Sequence[str], rule: str, fix: str) -> None:
    """Raise `UserError` for the first of `flags` that is given; `{flag}` in `fix` is its name."""
    given = {
        "-m": arguments.multirun,
        "--stages": arguments.stages is not None,
        "--config": arguments.config is not None,
        "--cfg": arguments.show_config,
    }
    for flag in flags:
        if given[flag]:
            raise UserError(flag, None, rule, fix.format(flag=flag))


def refuse_ranks(verb: str, ranks: Ranks, fix: str) -> None:
    """Raise `UserError` if a verb for one process is started on several ranks."""
    if ranks.world_size > 1:
        raise UserError(verb, None, f"started on {ranks.world_size} ranks", fix)
