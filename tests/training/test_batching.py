"""Every way to make batches, trained for real: any division, stopped and resumed."""

from itertools import pairwise

import pytest
from start_ranks import run

MODES = {
    "packed": {},
    "grouped": {"batching": "grouped"},
    "replay": {"replay": 0.25},
    "replay grouped": {"replay": 0.5, "batching": "grouped"},
    "longer rows": {"sequence_warmup": {"start": 8, "steps": 4}},
    "larger batches": {"batch_warmup": {"start": 64, "steps": 5}},
    "all that grows": {
        "replay": 0.25,
        "sequence_warmup": {"start": 8, "steps": 4},
        "batch_warmup": {"start": 64, "steps": 5},
    },
}
GROWING = {"batch_warmup": {"start": 64, "steps": 5}}


def chains(result):
    return [record[2] for record in result["records"]]


def norms(result):
    return [record[4] for record in result["records"]]


def test_neither_ranks_nor_micro_batches_change_the_batches(tmp_path):
    def tasks(*micros):
        return [
            {"train": mode, "micro": micro, "folder": tmp_path / f"{len(micros)}-{name}-{micro}"}
            for name, mode in MODES.items()
            for micro in micros
        ]

    one = run(tasks(None, 32, 128), processes=1)
    two = run(tasks(None, 64), processes=2)
    for i, name in enumerate(MODES):
        first, *others = [*one[3 * i : 3 * i + 3], *two[2 * i : 2 * i + 2]]
        assert len(first["losses"]) == 6
        for other in others:
            assert other["losses"] == pytest.approx(first["losses"], abs=1e-5), name
            assert chains(other) == chains(first), name
            assert norms(other) == pytest.approx(norms(first), rel=1e-4), name
    ends = {name: chains(one[3 * i])[-1] for i, name in enumerate(MODES)}
    assert ends.pop("longer rows") == ends["packed"]  # the same text, cut
    assert len(set(ends.values())) == len(ends)


def test_resumed_they_end_with_the_same_bits(tmp_path):
    whole = [{"train": mode, "folder": tmp_path / name} for name, mode in MODES.items()]
    cut = [{"train": mode, "folder": tmp_path / f"{name} cut"} for name, mode in MODES.items()]
    results = run([*whole, *({**task, "stop_at": 4} for task in cut)])
    for name, before, after in zip(MODES, results, run(cut), strict=False):
        assert after["hash"] == before["hash"], name
        assert after["records"] == before["records"][3:], name


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_grow_at_every_zero_stage(tmp_path, processes):
    ways = [{"zero": stage} for stage in (0, 1, 2, 3)]
    ways += [{"zero": 2, "zero_settings": {"offload_optimizer": True}}]
    tasks = [
        {**way, "train": GROWING, "micro": 64, "folder": tmp_path / str(i)}
        for i, way in enumerate(ways)
    ]
    first, *others = run(tasks, processes)
    for other in others:
        assert other["losses"] == pytest.approx(first["losses"], abs=1e-5)


def test_four_ranks_then_two_then_four_again_read_the_same_rows(tmp_path):
    names = ("packed", "grouped", "replay")
    cut = [{"train": MODES[name], "folder": tmp_path / name} for name in names]
    whole = [{**task, "folder": f"{task['folder']} whole"} for task in cut]
    before = run([*whole, *({**task, "stop_at": 3} for task in cut)], processes=4)
    assert before[3:] == [None] * 3
    assert run([{**task, "stop_at": 3} for task in cut], processes=2) == [None] * 3
    for one, other in zip(before, run(cut, processes=4), strict=False):
        assert chains(other) == chains(one)[4:]
        assert other["losses"] == pytest.approx(one["losses"][4:], abs=1e-5)


def test_an_epoch_ends_within_a_step_and_the_text_continues(tmp_path):
    steps = {"steps": 12}
    whole, cut = run(
        [
            {**steps, "folder": tmp_path / "whole"},
            {**steps, "folder": tmp_path / "cut", "stop_at": 10},
        ],
    )
    (again,) = run([{**steps, "folder": tmp_path / "cut"}], processes=2)
    assert cut is None
    assert chains(again) == chains(whole)[9:]
    assert again["losses"] == pytest.approx(whole["losses"][9:], abs=1e-5)
    assert all(a != b for a, b in pairwise(chains(whole)))
