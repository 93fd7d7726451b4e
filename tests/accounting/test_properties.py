"""Property-based tests: invariants for every model, method and setup (hypothesis)."""

from dataclasses import asdict, replace
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hpc_llm.accounting import (
    Architecture,
    Machine,
    Method,
    TrainingSetup,
    device,
    fits,
    flops_per_token,
    memory_plan,
    parameter_count,
    pf_days,
    step_flops,
    trainable_parameters,
    zero_traffic,
)
from hpc_llm.accounting.activations import held_activations
from hpc_llm.accounting.hardware import cluster_catalogue
from hpc_llm.accounting.memory import tight
from hpc_llm.accounting.method import adapted_layers, attention_inputs, layer_sizes
from hpc_llm.accounting.projection import hardware_flops, project_flops

drawn = settings(max_examples=100, deadline=None, derandomize=True, database=None)
sizes = st.integers(1, 4096)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    kind = draw(st.sampled_from(["decoder", "decoder", "mixture", "encoder"]))
    kv_heads = draw(st.sampled_from([1, 2, 4, 8]))
    return Architecture(
        hidden_size=64 * draw(st.integers(1, 64)),
        num_layers=draw(st.integers(1, 30)),
        num_heads=kv_heads * draw(st.sampled_from([1, 2, 4])),
        ffn_size=draw(st.integers(100, 30_000)),
        vocab_size=draw(st.integers(1000, 200_000)),
        num_kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([32, 64, 128])),
        gated_mlp=kind != "encoder",
        tied_embeddings=draw(st.booleans()),
        num_experts=4 if kind == "mixture" else 0,
        experts_per_token=2 if kind == "mixture" else 0,
        kind="encoder" if kind == "encoder" else "decoder",
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Architecture, Method]:
    """A model and a method that it can be trained with."""
    arch = draw(architectures())
    names = ["full", "embeddings", "input_embeddings", "head", "lora", "lora", "lora"]
    name, recompute = draw(st.sampled_from(names)), draw(st.booleans())
    if name != "lora":
        return arch, getattr(Method, name)(recompute=recompute)
    present = (*attention_inputs(arch), "o_proj") if arch.num_experts else tuple(layer_sizes(arch))
    targets = draw(st.just("all") | st.sets(st.sampled_from(present), min_size=1).map(tuple))
    embeddings, head = draw(st.booleans()), draw(st.booleans())
    rank = draw(st.integers(1, 64))
    return arch, Method.lora(rank, targets, embeddings, head, recompute=recompute)


@st.composite
def setups(draw: st.DrawFn) -> TrainingSetup:
    return TrainingSetup(
        precision=draw(st.sampled_from(["fp32", "bf16", "fp16"])),
        sequence_length=draw(sizes),
        micro_batch_size=draw(st.integers(1, 8)),
        zero_stage=draw(st.integers(0, 3)),
        data_parallel=draw(sizes),
        fused_loss=draw(st.booleans()),
    )


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    cluster = replace(cluster_catalogue()["a100_4x8"], nodes=draw(sizes), carbon_g_per_kwh=441.0)
    hardware = device(draw(st.sampled_from(["a100_sxm_80gb", "h100_sxm"])))
    return Machine(hardware=hardware, cluster=cluster, precision="bf16")


@drawn
@given(
    case=cases(),
    setup=setups(),
    key=st.sampled_from(["hidden_size", "num_layers", "ffn_size", "vocab_size"]),
    more=sizes,
)
def test_a_larger_model_never_costs_less(
    case: tuple[Architecture, Method], setup: TrainingSetup, key: str, more: int
) -> None:
    arch, method = case
    larger = replace(arch, **{key: getattr(arch, key) + more})
    assert step_flops(larger, method, 2, 128).total > step_flops(arch, method, 2, 128).total
    assert parameter_count(larger).total > parameter_count(arch).total
    assert trainable_parameters(larger, method) >= trainable_parameters(arch, method)
    assert memory_plan(larger, method, setup).total >= memory_plan(arch, method, setup).total
    assert zero_traffic(larger, method, setup) >= zero_traffic(arch, method, setup)


@drawn
@given(arch=architectures(), setup=setups(), rank=sizes, more=sizes)
def test_a_higher_rank_costs_more(
    arch: Architecture, setup: TrainingSetup, rank: int, more: int
) -> None:
    low, high = Method.lora(rank), Method.lora(rank + more)
    assert step_flops(arch, high, 1, 64).total > step_flops(arch, low, 1, 64).total
    trained = [trainable_parameters(arch, method) for method in (low, high)]
    assert trained[1] * rank == trained[0] * (rank + more)
    assert memory_plan(arch, high, setup).total > memory_plan(arch, low, setup).total


@drawn
@given(case=cases(), length=sizes, more=sizes)
def test_more_tokens_cost_more_and_longer_rows_more_for_each_token(
    case: tuple[Architecture, Method], length: int, more: int
) -> None:
    arch, method = case
    one = step_flops(arch, method, 1, length).total
    assert step_flops(arch, method, 1 + more, length).total == (1 + more) * one
    assert step_flops(arch, method, 1, length + more).total > one
    short, long = (flops_per_token(arch, method, n) for n in (length, length + more))
    assert long >= short
    assert hardware_flops(arch, method, length + more, 64) > hardware_flops(arch, method, more, 64)


@drawn
@given(
    case=cases(),
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    attention=st.sampled_from(["dense", "causal"]),
)
def test_steps_add_up_over_documents(
    case: tuple[Architecture, Method], lengths: list[int], attention: str
) -> None:
    packed = step_flops(*case, 1, sum(lengths), attention, lengths)
    apart = [step_flops(*case, 1, length, attention) for length in lengths]
    for part in ("forward", "backward", "recompute", "total"):
        assert getattr(packed, part) == sum(getattr(step, part) for step in apart)


@drawn
@given(machine=machines(), stages=st.lists(st.integers(1, 10**24), min_size=1, max_size=5))
def test_projections_add_up_over_stages(machine: Machine, stages: list[int]) -> None:
    whole = project_flops(sum(stages), machine)
    parts = [project_flops(flops, machine) for flops in stages]
    for end in ("low", "mid", "high"):
        for key in ("hours", "device_hours", "money", "energy_kwh", "co2_kg"):
            added = sum(getattr(getattr(part, end), key) for part in parts)
            assert getattr(getattr(whole, end), key) == pytest.approx(added)
    for less, more in pairwise((whole.low, whole.mid, whole.high)):
        assert less.hours < more.hours
        assert less.money < more.money


@drawn
@given(case=cases(), length=sizes, rows=st.integers(1, 9))
def test_units_convert_there_and_back(
    case: tuple[Architecture, Method], length: int, rows: int
) -> None:
    causal = step_flops(*case, rows, length, "causal")
    assert flops_per_token(*case, length) * length * rows == pytest.approx(causal.model)
    days = pf_days(causal.total)
    assert days * 10**15 * 24 * 60 * 60 == pytest.approx(causal.total)
    assert pf_days(rows * causal.total) == pytest.approx(rows * days)


@drawn
@given(case=cases(), setup=setups())
def test_a_plan_is_tight_in_exactly_its_own_gibibytes_and_fits_into_a_little_more(
    case: tuple[Architecture, Method], setup: TrainingSetup
) -> None:
    plan, gpu = memory_plan(*case, setup), device("h100_sxm")
    for share, fitting in ((0.949, True), (0.951, False), (1, False)):
        one = replace(gpu, memory_gib=plan.total / share / 1024**3)
        assert (fits(plan, one), tight(plan, one)) == (fitting, not fitting)
    assert not tight(plan, replace(gpu, memory_gib=(plan.total - 1) / 1024**3))


@drawn
@given(case=cases(), setup=setups())
def test_parts_of_memory_add_up_and_the_two_that_pass_are_not_there_at_once(
    case: tuple[Architecture, Method], setup: TrainingSetup
) -> None:
    plan = memory_plan(*case, setup)
    parts = asdict(plan)
    assert min(parts.values()) >= 0
    assert plan.total == sum(parts.values()) - min(plan.logits, plan.recomputed)


@drawn
@given(case=cases(), setup=setups(), more=sizes)
def test_zero_divides_states_and_never_adds_any(
    case: tuple[Architecture, Method], setup: TrainingSetup, more: int
) -> None:
    wider = replace(setup, data_parallel=setup.data_parallel + more)
    assert memory_plan(*case, wider).states <= memory_plan(*case, setup).states
    stages = [memory_plan(*case, replace(setup, zero_stage=stage)).states for stage in range(4)]
    assert stages == sorted(stages, reverse=True)
    assert zero_traffic(*case, wider) >= zero_traffic(*case, setup)


@drawn
@given(case=cases(), setup=setups(), stage=st.integers(1, 3))
def test_zero_on_one_rank_is_no_zero(
    case: tuple[Architecture, Method], setup: TrainingSetup, stage: int
) -> None:
    alone = replace(setup, data_parallel=1, fused_loss=False)
    plain, divided = (
        memory_plan(*case, replace(alone, zero_stage=number)) for number in (0, stage)
    )
    assert divided == plain
    assert zero_traffic(*case, replace(alone, zero_stage=stage)) == 0


@drawn
@given(case=cases(), length=sizes)
def test_recomputation_trades_flops_for_memory(
    case: tuple[Architecture, Method], length: int
) -> None:
    arch, method = case
    plain, again = (replace(method, recompute=flag) for flag in (False, True))
    steps = [step_flops(arch, m, 1, length) for m in (plain, again)]
    assert steps[1].total > steps[0].total
    assert steps[1].model >= steps[0].model  # it forces gradients of inputs where there were none
    assert 0 < steps[1].recompute <= steps[1].forward
    if method.trains_embedding:  # then everything above it is kept
        held = [held_activations(arch, m, 2).layers for m in (plain, again)]
        assert held[1] < held[0]


@drawn
@given(case=cases(), length=sizes)
def test_no_method_costs_more_than_full_training(
    case: tuple[Architecture, Method], length: int
) -> None:
    arch, method = case
    method = replace(method, recompute=False)
    sizes_of = layer_sizes(arch)
    pairs = [sizes_of[name] for name in adapted_layers(arch, method)]
    # An adapter costs 3 x 2 r (i + o), freezing its matrix saves 2 i o: small ranks only.
    assume(3 * method.rank * sum(map(sum, pairs)) <= sum(i * o for i, o in pairs))
    full, step = (step_flops(arch, m, 1, length) for m in (Method.full(), method))
    assert step.total <= full.total
    assert step.forward >= full.forward  # adapters add, freezing saves nothing here
    assert full.backward == 2 * full.forward
    if not method.rank:
        assert trainable_parameters(arch, method) <= parameter_count(arch).total


@drawn
@given(case=cases(), length=sizes)
def test_causal_attention_is_cheaper_in_decoders_alone(
    case: tuple[Architecture, Method], length: int
) -> None:
    dense, causal = (step_flops(*case, 1, length, kind).total for kind in ("dense", "causal"))
    same = length == 1 or case[0].kind == "encoder"
    assert (causal == dense) if same else (causal < dense)
