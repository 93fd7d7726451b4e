"""The index of rows on disk: same rows, any number of builders, never believed when damaged."""

import json
import os
import shutil
import subprocess
import tracemalloc

import index_tiny
import numpy as np
import pytest
from start_ranks import start_ranks

from hpc_llm.distributed import Ranks
from hpc_llm.errors import UserError
from hpc_llm.stages.row_index import open_rows
from hpc_llm.training.data.index import RowIndex
from hpc_llm.training.data.packing import RowKey, arrange

DRAWN = np.random.default_rng(1)
LENGTHS = DRAWN.lognormal(4, 0.7, 40_000).astype(np.int32).clip(1, 2000)
FEW = DRAWN.integers(1, 90, 300).astype(np.int32)
KEYS = [RowKey(512, 1), RowKey(512, 2), RowKey(64, 1), RowKey(512, 1, 8), RowKey(64, 3, 1)]


def built(prefix, lengths, key, shares=1):
    """Build the index beside `prefix`, one share after another."""
    index = RowIndex.beside(prefix, key, len(lengths))
    work = prefix.with_name("work")
    work.mkdir()
    index.begin(work, lengths)
    for share in reversed(range(shares)):
        index.write_part(work, lengths, share, shares)
    index.finish(work, shares, lambda: 77)
    shutil.rmtree(work)
    return index


def opened(index, lengths):
    """Open the index as a single rank does."""
    return open_rows(index, lengths, lambda: 77, Ranks())


def same(found, expected):
    """Return whether two packings are equal in all they hold."""
    return (
        (found.offsets == expected.offsets).all()
        and (found.pieces == expected.pieces).all()
        and (found.totals, found.unit) == (expected.totals, expected.unit)
    )


def content(index):
    """Return the files of an index."""
    return {path.name: path.read_bytes() for path in index.path.iterdir()}


def is_mapped(values):
    """Return whether an array is a view of a file."""
    while values is not None and not isinstance(values, np.memmap):
        values = values.base
    return values is not None


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_the_index_holds_the_rows_of_packing_in_memory(key, tmp_path):
    index = built(tmp_path / "text", LENGTHS, key)
    found, text_bytes = index.open()
    assert same(found, arrange(LENGTHS, key))
    assert text_bytes == 77
    assert is_mapped(found.pieces)
    assert is_mapped(found.offsets)


@pytest.mark.parametrize("key", [RowKey(256, 1), RowKey(256, 1, 4)], ids=str)
def test_any_number_of_builders_writes_the_same_bytes(key, tmp_path, monkeypatch):
    monkeypatch.setattr("hpc_llm.training.data.packing.BAND", 9000)
    found = []
    for shares in (1, 2, 4, 7):
        (tmp_path / f"{shares}").mkdir()
        found.append(content(built(tmp_path / f"{shares}" / "text", LENGTHS, key, shares)))
    assert found[0] == found[1] == found[2] == found[3]


def test_a_second_start_reads_the_index_of_the_first(tmp_path):
    index = RowIndex.beside(tmp_path / "text", KEYS[0], len(LENGTHS))
    assert index.problem() is None
    first, _ = opened(index, LENGTHS)
    files = {path: path.stat().st_ino for path in index.path.iterdir()}
    second, _ = opened(index, LENGTHS)
    assert {path: path.stat().st_ino for path in index.path.iterdir()} == files
    assert same(first, second)
    assert list(tmp_path.iterdir()) == [index.path]


def test_other_rows_have_another_index(tmp_path):
    keys = [*KEYS, RowKey(512, 1, data="other")]
    paths = {RowIndex.beside(tmp_path / "text", key, 9).path for key in keys}
    paths |= {RowIndex.beside(tmp_path / name, KEYS[0], n).path for name, n in [("a", 9), ("a", 8)]}
    assert len(paths) == len(keys) + 2


def flip(name, place):
    """Return the damage of one bit of a file."""

    def damage(index, other):
        content = bytearray((index.path / name).read_bytes())
        content[place] ^= 4
        (index.path / name).write_bytes(content)

    return damage


def cut(name):
    """Return the damage of a file that lacks its end."""

    def damage(index, other):
        (index.path / name).write_bytes((index.path / name).read_bytes()[:-12])

    return damage


def changed_total(index, other):
    path = index.path / "index.json"
    found = json.loads(path.read_text())
    found["totals"]["tokens"] += 1
    path.write_text(json.dumps(found))


def of_another_text(index, other):
    shutil.rmtree(index.path)
    shutil.copytree(other.path, index.path)


def its_files_are_of_another_text(index, other):
    for name in ("pieces.bin", "offsets.bin"):
        shutil.copy(other.path / name, index.path / name)


DAMAGES = {
    "a bit of the pieces": flip("pieces.bin", 100),
    "a bit of the offsets": flip("offsets.bin", -3),
    "a bit of the description": flip("index.json", 40),
    "short pieces": cut("pieces.bin"),
    "short offsets": cut("offsets.bin"),
    "short description": cut("index.json"),
    "no description": lambda index, other: (index.path / "index.json").unlink(),
    "no pieces": lambda index, other: (index.path / "pieces.bin").unlink(),
    "a list": lambda index, other: (index.path / "index.json").write_text("[]"),
    "no checksum": lambda index, other: (index.path / "index.json").write_text("{}"),
    "a changed total": changed_total,
    "another text": of_another_text,
    "files of another text": its_files_are_of_another_text,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_index_is_built_again(damage, tmp_path):
    index = built(tmp_path / "text", FEW, RowKey(64, 1, data="this"))
    other = built(tmp_path / "text", FEW[::-1].copy(), RowKey(64, 1, data="another"))
    before = content(index)
    DAMAGES[damage](index, other)
    assert index.problem()
    found, text_bytes = opened(index, FEW)
    assert same(found, arrange(FEW, index.key))
    assert (index.problem(), text_bytes, content(index)) == ("", 77, before)


def test_an_interrupted_build_leaves_no_index(tmp_path):
    index = RowIndex.beside(tmp_path / "text", KEYS[2], len(FEW))
    work = tmp_path / f".{index.path.name}.4194999-a.tmp"  # no process has this id
    work.mkdir()
    index.begin(work, FEW)
    index.write_part(work, FEW, 0, 2)
    with pytest.raises(FileNotFoundError):
        index.finish(work, 2, lambda: 77)
    assert index.problem() is None
    found, _ = opened(index, FEW)
    assert same(found, arrange(FEW, index.key))
    assert list(tmp_path.iterdir()) == [index.path]


def test_ranks_build_it_together_or_pack_in_memory_together(tmp_path):
    (tmp_path / "file").touch()  # no folder: nothing can be written there
    found, console = start_ranks("index_tiny.py", str(tmp_path), processes=2)
    key = RowKey(512, 1)
    digest = arrange(index_tiny.LENGTHS, key).totals.digest
    assert found == [[digest] * 2, [digest] * 2, [""] * 2]
    assert console.count("packs the text in memory") == 1
    (tmp_path / "alone").mkdir()
    alone = built(tmp_path / "alone" / "text", index_tiny.LENGTHS, key)
    together = RowIndex.beside(tmp_path / "text", key, len(index_tiny.LENGTHS))
    assert content(together) == content(alone)


def test_a_run_links_the_index_of_another_run(tmp_path):
    folders = [tmp_path / name for name in ("first", "second", "entry")]
    for folder in folders:
        folder.mkdir()
    runs = [RowIndex.beside(folder / "text", KEYS[2], len(FEW)) for folder in folders[:2]]
    shared = folders[2] / "rows"
    assert open_rows(runs[0], FEW, lambda: 77, Ranks(), shared)[1] == 77
    found, text_bytes = open_rows(runs[1], FEW, lambda: 78, Ranks(), shared)
    assert text_bytes == 77  # of the first run: the second has built nothing
    assert same(found, arrange(FEW, KEYS[2]))
    (shared / runs[0].path.name / "pieces.bin").write_bytes(b"damaged")
    shutil.rmtree(runs[1].path)
    found, text_bytes = open_rows(runs[1], FEW, lambda: 78, Ranks(), shared)
    assert text_bytes == 78
    assert same(found, arrange(FEW, KEYS[2]))
    kept = RowIndex(shared / runs[1].path.name, runs[1].identity, KEYS[2])
    assert kept.problem() == ""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.mark.parametrize("documents", [20_000, 8_000, 2_500], ids=["order", "parts", "joined"])
def test_on_a_full_disk_nothing_is_left(documents, small_disk, caplog):
    lengths = LENGTHS[:documents]
    index = RowIndex.beside(small_disk / "text", KEYS[0], documents)
    with caplog.at_level("INFO", "hpc_llm"):
        assert opened(index, lengths) is None
    assert len(caplog.messages) == 1
    assert str(small_disk) in caplog.text
    assert list(small_disk.iterdir()) == []


def test_a_planted_link_is_refused(tmp_path):
    index = RowIndex.beside(tmp_path / "text", KEYS[2], len(FEW))
    (tmp_path / "victim").mkdir()
    index.path.symlink_to(tmp_path / "victim")
    with pytest.raises(UserError):
        opened(index, FEW)
    assert list((tmp_path / "victim").iterdir()) == []


def peak(work):
    """Return the most bytes that Python and numpy held at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("unit", [None, 8])
def test_memory_does_not_grow_with_the_text(unit, tmp_path, monkeypatch):
    monkeypatch.setattr("hpc_llm.training.data.packing.BAND", 16_384)
    monkeypatch.setattr("hpc_llm.training.data.index.BLOCK", 16_384)
    monkeypatch.setattr("hpc_llm.training.data.segments.BLOCK", 16_384)
    monkeypatch.setattr("hpc_llm.training.data.packing.BLOCK", 16_384)
    peaks = []
    for count in (40_000, 160_000):
        lengths = np.full(count, 500, np.int32)
        lengths[::7] = 40
        index = RowIndex.beside(tmp_path / "text", RowKey(512, 1, unit), count)
        work = tmp_path / f"{count}"
        work.mkdir()
        index.begin(work, lengths)
        build = (
            peak(lambda: index.write_part(work, lengths, 0, 1)),  # noqa: B023
            peak(lambda: index.finish(work, 1, lambda: 77)),  # noqa: B023
        )
        peaks.append((*build, peak(index.open)))
    per_row = 4  # bytes: the order of the rows in an epoch, for the digest
    for small, large in zip(*peaks, strict=True):
        assert large <= 1.1 * small + per_row * 160_000
    assert peaks[1][2] < 100_000
