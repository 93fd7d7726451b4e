"""Every number has a range, and every setting of every group takes any word or names itself."""

import math
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from errors import user_error
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hpc_llm import config
from hpc_llm.config.compose import _as_meant
from hpc_llm.config.suggest import wrong_value
from hpc_llm.config.words import in_hydra_syntax, parse_override
from hpc_llm.errors import UserError
from hpc_llm.methods import describe, method_names
from hpc_llm.settings import HardwareSettings, RunConfig
from hpc_llm.settings.checks import Range, check_fields

GROUPS = {one.name: one.type for one in fields(RunConfig) if is_dataclass(one.type)}
METHODS = {name: describe(name).settings for name in method_names()}
FEW = settings(
    max_examples=500,
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.generate,),  # shrinking takes minutes
    suppress_health_check=list(HealthCheck),
)


def numbers(kind: Any, key: str) -> list[tuple[str, Range | None]]:
    """Return the keys and ranges of all numbers below a dataclass."""
    found = []
    for one in fields(kind):
        if is_dataclass(one.type):
            found += numbers(one.type, f"{key}.{one.name}")
        elif "int" in str(one.type) or "float" in str(one.type):
            found.append((f"{key}.{one.name}", one.metadata.get("range")))
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_the_range_of_every_number_is_finite(group):
    for key, span in numbers(GROUPS[group], group):
        assert span is None or math.isfinite(span.high - span.low), key


@pytest.mark.parametrize(
    "word",
    [
        *("train.weight_decay=inf", "train.weight_decay=nan", "train.weight_decay=-inf"),
        *("train.weight_decay=1e-320", "train.weight_decay=-0.1", "correct.beta=1e300"),
        *("stages.lora.lora_b_rate_ratio=inf", "stages.lora.embedding_rate_ratio=1e23"),
        *("stages.lora.text.target=inf", "preflight.message_mib=100000000000000000000000"),
        *("budget.rates.RUB=inf", "guards.slow_factor=1", "hardware.utilisation_high=1.5"),
        *("hardware.peak_tflops.bf16=nan", "train.beta1=1", "seed=-1", "corpus.max_documents=0"),
        *("zero.extra.a=inf", "launch.options.x-y=nan", "train.sequence_warmup.start=0"),
        *("stages.lora.schedule.final_fraction=2", "schedule.warmup_fraction=nan"),
        *("tokenizer.source_share=inf", "evaluation.stride=-1", "corpus.max_heldout_share=2"),
    ],
)
def test_a_number_outside_its_range_is_named(word):
    key = word.partition("=")[0].replace("stages.lora.schedule.final", "stages.lora.final")
    with pytest.raises(UserError) as caught:
        config.typed(config.compose([word]))
    assert caught.value.key == key.replace("lora.final", "lora.schedule.final")


def test_a_number_in_quotes_is_read_or_refused():
    assert config.typed(config.compose(["hardware.watts='700'"])).hardware.watts == 700
    values = {one.name: None for one in fields(HardwareSettings)}
    texts = dict.fromkeys(("name", "precision", "kind", "currency", "price_date", "source"), "x")
    card = {**values, **texts, "match": [], "kind": "gpu", "precision": "bf16", "peak_tflops": {}}
    assert HardwareSettings(**card).watts is None
    with user_error("hardware.watts", value="'700'"):
        HardwareSettings(**{**card, "watts": "700"})
    with user_error("hardware.peak_tflops.bf16", value="'989'"):
        HardwareSettings(**{**card, "peak_tflops": {"bf16": "989"}})


@cache
def values() -> Any:
    """The composed configuration, which examples change one setting of."""
    return OmegaConf.to_container(config.compose(["experiment=example"]))


TEXT = st.text(max_size=12) | st.text("abc019.,:;'\"\\/[]{}()=$~ -_*#@!?%", max_size=12)
NUMBER = (
    st.floats().map(str)
    | st.integers(-(2**70), 2**70).map(str)
    | st.sampled_from(
        ["0", "1", "-1", "1e23", "1e-320", "1_000", "0x10", "٣", "inf", "-inf", "nan", "5e9", ".5"]
    )
)
WORD = st.sampled_from(
    [
        "",
        "null",
        "???",
        "true",
        "${run}",
        "${oc.env:NO}",
        "[",
        "]",
        "[[1]]",
        "{}",
        "{a: 1}",
        "[nan]",
    ]
)
VALUE = TEXT | NUMBER | WORD | st.lists(TEXT | NUMBER, max_size=3).map(lambda v: f"[{','.join(v)}]")


def keys_of(kind: Any) -> list[str]:
    """Return the keys of a group, with one key in each mapping."""
    found = []
    for one in fields(kind):
        name = "from" if one.name == "from_stage" else one.name
        if is_dataclass(one.type):
            found += [f"{name}.{inner}" for inner in keys_of(one.type)]
        else:
            found += [name, f"{name}.x"] if "dict" in str(one.type) else [name]
    return found


def said(group: str, typed: Any, word: str) -> str | None:
    """Set one setting of a group as the command line does, and check the group.

    Return the error as printed; None if the value is taken.
    """
    typed = typed.copy()
    key = word.partition("=")[0].removeprefix(f"{group}.").replace("from", "from_stage")
    first = key.partition(".")[0]
    try:
        override = parse_override(_as_meant(parse_override(in_hydra_syntax(word))))
        if override.is_sweep_override():
            return None
        if typed[first] is None and "." in key:
            OmegaConf.update(typed, first, {}, merge=False)
        OmegaConf.update(typed, key, override.value(), merge=False, force_add=True)
        found = OmegaConf.to_object(typed)
        if group.startswith("stages."):
            found.check(group)
    except OmegaConfBaseException as error:
        return str(wrong_value(error, group))
    except UserError as error:
        return str(error)
    check_fields(found, group)
    return None


@pytest.mark.parametrize("group", [*GROUPS, *(f"stages.{name}" for name in METHODS)])
def test_any_value_of_any_setting_is_taken_or_named(group):
    name = group.removeprefix("stages.")
    if name in METHODS:
        kind = METHODS[name]
        composed = config.compose([f"+method@stages.{name}_x={name}"])
        base = OmegaConf.to_container(composed)["stages"][f"{name}_x"]
        base["from_stage"] = base.pop("from")
    else:
        kind, base = GROUPS[group], values()[group]
    typed = OmegaConf.merge(OmegaConf.structured(kind), base)

    @FEW
    @given(st.sampled_from(keys_of(kind)), VALUE)
    def run(key: str, value: str) -> None:
        line = said(group, typed, f"{group}.{key}={value}")
        assert line is None or "\n" not in line

    run()


@settings(FEW, max_examples=40)
@given(st.sampled_from(["run", "runs_dir", "seed", "model.name", "model.path", "model"]), VALUE)
def test_any_name_of_a_run_is_taken_or_refused(key, value):
    try:
        cfg = config.typed(config.compose([f"{key}={value}"]))
    except UserError:
        return
    parts = Path(cfg.run or cfg.model.label).parts
    assert parts
    assert parts[0] not in ("/", "~", ".cache")
    assert ".." not in parts
