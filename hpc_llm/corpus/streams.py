"""Lines of text files, plain or compressed, with errors that name the file and the line.

Limits keep a damaged or hostile file from filling memory or running for days: a line has at most
64 MiB, and a compressed file expands to at most 250 times its size (text reaches about 10), small
files to 64 MiB.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from hpc_llm.corpus.packed import kind_of, most_bytes, opened
from hpc_llm.errors import UserError

__all__ = ["LONGEST_LINE", "read_lines", "read_text"]

LONGEST_LINE = 2**26
"""Bytes of a line."""
LARGEST_WHOLE = 2**30
"""Bytes of a file that is read as a whole (.json)."""

MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
CONTROLS = bytes({*range(9), *range(14, 32), 127} - {27})  # 27: colours in logs
CONTROL_SHARE, FEW_CONTROLS = 0.01, 4
"""A file with a larger share of control characters is no text. A NUL alone is one too many."""
SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
"""A UTF-16 surrogate, which is no character of its own, written as if it were UTF-8."""
CONVERT = "convert it: iconv -f {} -t UTF-8 OLD > NEW (your encoding after -f)"
NO_BYTES = "remove such bytes: iconv -c -f UTF-8 -t UTF-8 OLD > NEW"
NO_NULS = r"remove its NULs (tr -d '\000' < OLD > NEW), or copy it again if it was cut off"
WHAT_FILE = "give text in UTF-8 (`file OLD` prints what it is)"
HEAD = 4096  # bytes in which the encoding is guessed


def guess_encoding(head: bytes) -> str | None:
    """Return the name (of iconv) of the encoding of a file that begins with `head`; None: unknown.

    UTF-16 and UTF-32 have a mark, or NULs and other control characters at every second or fourth
    byte: the upper halves of Latin and Cyrillic letters.
    """
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    places = [found.start() for found in re.finditer(b"[" + re.escape(CONTROLS) + b"]", head)]
    if len(places) < len(head) / 4:
        return None
    nuls = [place % 4 for place in places if head[place] == 0]
    for name, upper in (("UTF-32LE", (2, 3)), ("UTF-32BE", (0, 1))):
        if min(nuls.count(rest) for rest in upper) > len(head) / 5:
            return name
    odd = sum(place % 2 for place in places) / len(places)
    return "UTF-16LE" if odd > 0.9 else "UTF-16BE" if odd < 0.1 else None


class _Text:
    """Checks on the bytes of one text file as they are read."""

    def __init__(self, path: Path, head: bytes) -> None:
        """`head` are its first bytes: a file that is no text is refused before it is parsed."""
        self.path, self.head = path, head
        self.most = most_bytes(path)
        self.is_utf8 = False  # whether a character that is not ASCII has been read
        self.bytes = self.controls = self.nuls = 0
        self._count(head)
        self.check()
        self.bytes = self.controls = self.nuls = 0

    def decode(self, line: bytes, number: int) -> str:
        """Return line `number` as text; raise `UserError` if it is none, or if it is too long."""
        self._count(line)
        self._check_size(line, number)
        if self.bytes >= HEAD:
            self.check()
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise self._not_utf8(line, number, error.start) from error
        self.is_utf8 = self.is_utf8 or not line.isascii()
        return text

    def _count(self, data: bytes) -> None:
        self.bytes += len(data)
        if found := len(data) - len(data.translate(None, CONTROLS)):
            self.controls += found
            self.nuls += data.count(0)

    def _check_size(self, line: bytes, number: int) -> None:
        if len(line) > LONGEST_LINE:
            rule = f"line {number} is longer than {LONGEST_LINE:,} bytes"
            fix = "write one document on each line, or text with line ends"
            raise UserError(str(self.path), None, rule, fix)
        if self.most is not None and self.bytes > self.most:
            rule = f"expands to more than {self.most:,} bytes at line {number}"
            fix = "no text is that compressible: check the file, or decompress it"
            raise UserError(str(self.path), None, rule, fix)

    def check(self) -> None:
        """Raise `UserError` if the bytes so far are those of a binary file or of UTF-16."""
        if self.nuls or self.controls >= FEW_CONTROLS:
            share = self.controls / self.bytes
            if share > CONTROL_SHARE:
                fix = WHAT_FILE if self.controls > self.nuls else NO_NULS
                raise self._not_text(
                    f"not text: {share:.0%} of its bytes are control characters", fix
                )

    def _not_utf8(self, line: bytes, number: int, start: int) -> UserError:
        rule = f"line {number}, byte {start + 1} is not UTF-8"
        if SURROGATE.match(line, start):
            return self._not_text(f"{rule}, but a UTF-16 surrogate", NO_BYTES)
        if self.is_utf8:
            return self._not_text(f"{rule}, though the text before it is", NO_BYTES)
        return self._not_text(rule, CONVERT.format("WINDOWS-1251"))

    def _not_text(self, rule: str, fix: str) -> UserError:
        """Return the error; its first bytes, if they say what the file is, have the better fix."""
        if (guess := guess_encoding(self.head)) is not None:
            fix = CONVERT.format(guess)
        elif (found := kind_of(self.head)) is not None:
            rule, fix = f"is {found[0]}, not text", found[1]
        return UserError(str(self.path), None, rule, fix)


def _peek(stream: BinaryIO) -> bytes:
    """Return the first bytes of a stream without reading on."""
    head: bytes = stream.peek(HEAD)[:HEAD]  # type: ignore[attr-defined]
    return head


def read_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 file with their `\n`; `.gz` and `.zst` are decompressed.

    Raises `UserError` for corrupt compression, bytes that are not UTF-8, binary files and what is
    beyond the limits of this module.
    """
    with opened(path) as stream:
        text, number = _Text(path, _peek(stream)), 0
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            yield text.decode(line, number)
        text.check()


def read_text(path: Path) -> str:
    """Return the whole text of a file, read like `read_lines`, of at most 1 GiB."""
    lines, size = [], 0
    for line in read_lines(path):
        lines.append(line)
        size += len(line)
        if size > LARGEST_WHOLE:
            rule = f"has more than {LARGEST_WHOLE:,} characters"
            fix = "convert it to one document a line: jq -c '.[]' OLD.json > NEW.jsonl"
            raise UserError(str(path), None, rule, fix)
    return "".join(lines)
