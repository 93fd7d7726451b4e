"""Rows of documents as their description says, one segment at a time: a reference."""

import hashlib

import numpy as np

WINDOW = 16_384


def plain_rows(lengths, key):
    """Return the rows, lists of (document, start, length), for a `RowKey`."""
    pieces = []
    for document in np.random.default_rng([key.seed, 0]).permutation(len(lengths)).tolist():
        for start in range(0, int(lengths[document]), key.capacity):
            pieces.append((document, start, min(key.capacity, int(lengths[document]) - start)))
    if key.unit is not None:
        return list(_grouped(pieces, key.capacity, key.unit))
    rows = []
    for begin in range(0, len(pieces), WINDOW):
        left = pieces[begin : begin + WINDOW]
        places = {}  # of the segments, by their length
        for place, piece in enumerate(left):
            places.setdefault(piece[2], []).append(place)
        while any(places.values()):
            row, room = [], key.capacity
            while length := _best(places, room, key.capacity):
                row.append(places[length].pop())
                room -= length
            rows.append([left[place] for place in sorted(row)])
    return rows


def _best(places, room, capacity):
    """Return the next length of a row: an exact fit, a pair that is one, or the longest."""
    known = sorted(length for length, found in places.items() if found and length <= room)
    if not known or room == capacity or known[-1] == room:
        return known[-1] if known else 0
    for length in known:
        other = room - length
        if length >= other and places.get(other) and (length > other or len(places[length]) > 1):
            return length
    return known[-1]


def _grouped(pieces, capacity, unit):
    pieces = sorted(pieces, key=lambda piece: -piece[2])
    while pieces:
        width = min(capacity, -(-pieces[0][2] // 8) * 8)
        count = min(len(pieces), unit * (capacity // width))
        for row in range(unit):
            size = count // unit + (row < count % unit)
            yield pieces[:size]
            pieces = pieces[size:]


def plain_digest(rows, key):
    """Return the digest of the rows, and of their order in epoch 0."""
    units = len(rows) // (key.unit or 1)
    digest = hashlib.sha256()
    for values in (
        np.cumsum([0, *map(len, rows)]),
        np.array([document for row in rows for document, _, _ in row]),
        np.random.default_rng([key.seed, 1, 0]).permutation(units),
    ):
        digest.update(values.astype(np.int64).tobytes())
    return digest.hexdigest()
