"""Standard output and error that never decide how a command ends.

A reader that goes away (`| head`), a full device, a closed stream or a locale without the letters
to print must not fail a run that is done: what cannot be printed is dropped or spelt in ASCII.
"""

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["lasting_output"]

SPELT = "hpc_llm_spelt"  # name of the error handler of `codecs`
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-", strict=True))
ASCII = {
    **{"−": "-", "–": "-", "—": "-", "×": "x", "→": "->", "±": "+-", "φ": "phi", "…": "..."},
    **{
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
        "≤": "<=",
        "≥": ">=",
        "·": ".",
        "─": "-",
        "│": "|",
    },
}


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Return the letters that an encoding lacks in ASCII: 10⁻⁷ is 10^-7."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    spelt, before = "", ""
    for letter in letters:
        if letter in SUPERSCRIPTS:
            spelt += ("" if before in SUPERSCRIPTS else "^") + SUPERSCRIPTS[letter]
        else:
            spelt += ASCII.get(letter) or letter.encode("ascii", "backslashreplace").decode()
        before = letter
    return spelt, error.end


class _Stream:
    """A text stream; after its first failure it prints nothing more, and raises nothing."""

    def __init__(self, stream: Any, name: str) -> None:
        self.stream, self.name = stream, name
        self.ended = False
        with suppress(AttributeError, ValueError):  # no file, or a closed one
            stream.reconfigure(errors=SPELT)

    def write(self, text: str) -> int:
        """Write text, unless the stream has failed."""
        if not self.ended:
            try:
                self.stream.write(text)
            except (OSError, ValueError) as error:
                self._end(error)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, unless the stream has failed."""
        if not self.ended:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self._end(error)

    def __getattr__(self, name: str) -> Any:
        """Everything else is that of the stream."""
        return getattr(self.stream, name)

    def _end(self, error: Exception) -> None:
        """Print nothing more; what is still buffered goes to the null device at exit."""
        self.ended = True
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)
        except (OSError, ValueError):  # closed, or not a file
            pass
        if isinstance(error, OSError) and error.errno != errno.EPIPE and self.name == "stdout":
            print(f"hpc-llm: stdout: {error.strerror}; its output is incomplete", file=sys.stderr)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Make `sys.stdout` and `sys.stderr` such streams inside the block, and flush them at its end.

    Descriptors 0 to 2 that are closed are opened on the null device: else the next file that is
    opened, such as a checkpoint, would be taken for standard output.
    """
    codecs.register_error(SPELT, _spell)
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    before = sys.stdout, sys.stderr
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name) or open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, _Stream(stream, name))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
