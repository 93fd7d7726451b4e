"""The layout of data, sequence and tensor parallelism over the ranks."""

import pytest
from errors import user_error

from hpc_llm.distributed import layout_of

SIZES = [(1, 1, 1), (4, 1, 1), (4, 2, 1), (4, 1, 2), (8, 2, 2), (24, 4, 3), (6, 6, 1)]


@pytest.mark.parametrize(("world_size", "sequence", "tensor"), SIZES)
def test_every_rank_has_a_place_of_its_own(world_size, sequence, tensor):
    layout = layout_of(world_size, sequence, tensor)
    assert layout.world_size == world_size
    places = [layout.place(rank) for rank in range(world_size)]
    found = [(p.data, p.sequence, p.tensor) for p in places]
    sizes = (layout.data, sequence, tensor)
    assert found == [
        (d, s, t) for d in range(sizes[0]) for s in range(sizes[1]) for t in range(sizes[2])
    ]
    # of the ranks that read the same rows, exactly one counts them
    assert [p.data for p in places if p.counts_rows] == list(range(layout.data))


@pytest.mark.parametrize(("world_size", "sequence", "tensor"), SIZES)
def test_groups_have_each_rank_once_and_differ_in_one_coordinate(world_size, sequence, tensor):
    layout = layout_of(world_size, sequence, tensor)
    for kind, size, groups in (
        ("sequence", sequence, layout.sequence_groups()),
        ("tensor", tensor, layout.tensor_groups()),
    ):
        assert sorted(rank for group in groups for rank in group) == list(range(world_size))
        for group in groups:
            places = [vars(layout.place(rank)) for rank in group]
            assert [place.pop(kind) for place in places] == list(range(size))
            assert all(place == places[0] for place in places)


def test_ranks_of_a_tensor_group_are_adjacent_and_a_sequence_group_is_close():
    layout = layout_of(16, 2, 4)
    assert layout.tensor_groups()[0] == [0, 1, 2, 3]
    assert layout.sequence_groups()[0] == [0, 4]


@pytest.mark.parametrize(
    ("world_size", "sequence", "tensor", "key"),
    [(3, 2, 1, "sequence"), (4, 3, 1, "sequence"), (6, 1, 4, "tensor"), (6, 2, 2, "tensor"),
     (4, 4, 4, "tensor"), (1, 2, 1, "sequence")],
)  # fmt: skip
def test_sizes_that_do_not_divide_the_ranks_are_refused(world_size, sequence, tensor, key):
    with user_error(f"parallel.{key}", world_size):
        layout_of(world_size, sequence, tensor)
