"""Passwords and keys do not belong into settings: a run writes its settings to many places.

`config.yaml`, the job script, the report page, W&B and the shell's history would show them. Secrets
reach a run through environment variables (`WANDB_API_KEY`, `HF_TOKEN`) and the files of their
programs (`~/.netrc`), which nothing writes.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hpc_llm.errors import UserError

__all__ = ["refuse_secrets"]

NAME = r"(?:[A-Z0-9]+_)*(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(?:_[A-Z0-9]+)*"
VARIABLE = re.compile(NAME)
ASSIGNED = re.compile(rf"(?<![A-Za-z0-9_]){NAME}=[^\s,]")
IN_URL = re.compile(r"://[^\s/@]*:[^\s/@]+@")
ISSUED = re.compile(r"(?<![A-Za-z0-9_])(?:hf_|gh[oprsu]_|github_pat_|sk-)[A-Za-z0-9_-]{20,}")
"""Keys of the Hugging Face hub, GitHub and others by their prefix."""
ENVIRONMENT = "cluster.environment."


def refuse_secrets(settings: Mapping[str, Any]) -> None:
    """Raise `UserError` for a setting (dotted key -> value) that holds a password, key or token.

    The error has the name of the setting, not its value.
    """
    for key, value in settings.items():
        variable = key.removeprefix(ENVIRONMENT) if key.startswith(ENVIRONMENT) else ""
        named = bool(value) and VARIABLE.fullmatch(variable) is not None
        if named or any(_is_secret(text) for text in _texts(value)):
            rule = "holds a password, key or token, and settings are written to files and pages"
            fix = "export it in the shell as an environment variable, or use the program's own file"
            raise UserError(key, None, rule, fix)


def _is_secret(text: str) -> bool:
    return any(pattern.search(text) for pattern in (ASSIGNED, IN_URL, ISSUED))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (str(key), *_texts(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
