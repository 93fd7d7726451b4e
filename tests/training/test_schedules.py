"""Learning-rate schedules against published formulas, and stages that end by a budget."""

import math

import pytest
import torch
import transformers
from errors import user_error
from start_ranks import run

from hpc_llm.settings import ScheduleSettings
from hpc_llm.training.progress import Progress
from hpc_llm.training.schedules import StageLength, relative_rate

STEPS, WARMUP, DECAY = 200, 20, 50


def schedule(name, **changes):
    values = {"warmup_fraction": WARMUP / STEPS, "final_fraction": 0.0,
              "decay_fraction": DECAY / STEPS, "decay": "linear"}  # fmt: skip
    return ScheduleSettings(name=name, **(values | changes))


def published(build, *arguments, **options):
    """The rates of a schedule of transformers, step by step."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rates, scheduler = [], build(optimizer, *arguments, **options)
    for _ in range(STEPS):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


KINDS = {
    "constant": (schedule("constant"), (transformers.get_constant_schedule_with_warmup, WARMUP)),
    "linear": (schedule("linear"), (transformers.get_linear_schedule_with_warmup, WARMUP, STEPS)),
    "cosine": (schedule("cosine"), (transformers.get_cosine_schedule_with_warmup, WARMUP, STEPS)),
    "inverse_sqrt": (
        schedule("inverse_sqrt"), (transformers.get_inverse_sqrt_schedule, WARMUP),
    ),
    **{
        f"wsd-{form}": (
            schedule("wsd", decay=form),
            (transformers.get_wsd_schedule, WARMUP, DECAY, STEPS, None, "linear", theirs),
        )
        for form, theirs in (("linear", "linear"), ("cosine", "cosine"), ("sqrt", "1-sqrt"))
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_shape_is_that_of_transformers(kind):
    ours, (build, *arguments) = KINDS[kind]
    found = [relative_rate(ours, step / STEPS) for step in range(STEPS)]
    assert found == pytest.approx(published(build, *arguments), abs=1e-9)


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd"])
def test_the_fall_ends_at_its_final_fraction(name):
    ours = schedule(name, final_fraction=0.1)
    assert relative_rate(ours, 1.0) == pytest.approx(0.1)
    assert relative_rate(ours, 1 - DECAY / STEPS - 1e-9) > 0.1
    low, high = schedule(name), relative_rate(ours, 0.9)
    assert high == pytest.approx(0.1 + 0.9 * relative_rate(low, 0.9))


def test_an_exponential_decay_halves_in_equal_times():
    ours = schedule("wsd", decay="exponential", final_fraction=1 / 16)
    begin, quarter = 1 - DECAY / STEPS, DECAY / STEPS / 4
    rates = [relative_rate(ours, begin + k * quarter) for k in range(5)]
    assert rates == pytest.approx([1, 1 / 2, 1 / 4, 1 / 8, 1 / 16])


@pytest.mark.parametrize(
    ("changes", "key", "value", "mention"),
    [
        (
            {"name": "inverse_sqrt", "warmup_fraction": 0.0},
            *("warmup_fraction", "0", "inverse_sqrt"),
        ),
        ({"name": "wsd", "decay_fraction": 0.0}, "decay_fraction", 0.0, "0"),
        (
            {"name": "wsd", "decay_fraction": 0.95},
            *("decay_fraction", 0.95, "schedule.warmup_fraction=0.1"),
        ),
        ({"name": "wsd", "decay": "exponential"}, "final_fraction", "0", "schedule.decay=sqrt"),
        ({"name": "wsd", "decay": "step"}, "decay", "step", "cosine, exponential, linear, sqrt"),
        ({"name": "polynomial"}, "name", "polynomial", "constant, cosine, inverse_sqrt, linear"),
    ],
)
def test_what_cannot_be_is_reported(changes, key, value, mention):
    with user_error(f"schedule.{key}", mention, value=value):
        schedule(**changes)


def test_a_stage_ends_by_the_limit_that_is_nearest():
    length = StageLength(steps=100, tokens=5000, flops=10**20)
    assert length.fraction(Progress()) == 0
    assert length.fraction(Progress(step=10, tokens=1000, flops=10**19)) == 0.2
    assert not length.ended(Progress(step=99, tokens=4999, flops=10**20 - 10**6))
    for reached in ({"step": 100}, {"tokens": 5000}, {"flops": 10**20}):
        assert length.ended(Progress(**reached))
    before, after = Progress(step=9, tokens=4900), Progress(step=10, tokens=5300)
    assert length.middle(before, after) == (0.98 + 1) / 2
    assert length.expected_steps(600, 10**15) == math.ceil(5000 / 600)
    assert StageLength(steps=7).expected_steps(1, 1) == 7


def test_a_budget_of_tokens_ends_the_stage_and_its_annealing_whatever_was_interrupted(tmp_path):
    tokens, many = 900, {"steps": 500}
    limits = {"tokens": {"tokens": tokens, **many}, "flops": {"flops": tokens, **many}}
    whole = [{**limit, "folder": tmp_path / f"{name}-whole"} for name, limit in limits.items()]
    cut = [{**limit, "folder": tmp_path / f"{name}-cut"} for name, limit in limits.items()]
    first, by_flops, *stopped = run([*whole, *({**task, "stop_at": 3} for task in cut)])
    assert stopped == [None, None]
    assert by_flops == first  # in the tiny run a token costs one FLOP
    assert first["tokens"] >= tokens
    assert first["tokens"] - tokens < first["tokens"] / len(first["losses"]) * 1.5
    peak, last = 0.01, first["rates"][-1]
    assert last < 0.25 * peak
    assert first["rates"] == sorted(first["rates"], reverse=True)
    for again in run(cut):
        assert again["hash"] == first["hash"]
        assert again["rates"] == first["rates"][2:]
