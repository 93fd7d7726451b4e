"""Reads an offline `.wandb` file: a 7-byte header, then records in LevelDB's log framing."""

import struct
from pathlib import Path

BLOCK_BYTES = 32 * 1024
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def payloads(path: Path) -> list[bytes]:
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    found, part, place = [], b"", 7
    while place + 7 <= len(data):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < 7:  # no header fits: the block is padded
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        body = data[place + 7 : place + 7 + size]
        if kind not in (FULL, FIRST, MIDDLE, LAST) or len(body) < size:
            break  # a torn end
        part = body if kind in (FULL, FIRST) else part + body
        if kind in (FULL, LAST):
            found.append(part)
        place += 7 + size
    return found
