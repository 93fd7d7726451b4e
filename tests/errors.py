"""Errors as tests look at them: by their fields, not by their sentences."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hpc_llm.errors import UserError


@contextmanager
def user_error(key: str, *mentions: Any, value: Any = ..., kind=UserError) -> Iterator[Any]:
    """Expect a `UserError` about `key`, with `value` if one is given.

    `mentions` are names, numbers or settings (not sentences) that its rule or fix must contain.
    """
    with pytest.raises(kind) as caught:
        yield caught
    error = caught.value
    assert error.key == key, str(error)
    if value is not ...:
        assert error.value == value, str(error)
    for word in mentions:
        assert str(word) in f"{error.rule} {error.fix}", str(error)
    assert error.rule, f"{error}: says no rule"
    assert "\n" not in str(error)
