"""Where ranks meet on sites that name their fast network otherwise, and the variables for it."""

import dataclasses

from hpc_llm.distributed import Ranks, detect_ranks, join_network

SITE = {"NCCL_SOCKET_IFNAME": "ib0", "NCCL_IB_TIMEOUT": "50"}
STEP = {
    "SLURM_JOB_ID": "7", "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_PROCID": "1",
    "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "jwb[0038-0039]", "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}  # fmt: skip


def meet(environment, suffix="i"):
    return join_network(detect_ranks(environment), suffix, {}, dict(environment)).master_address


def test_ranks_of_several_nodes_meet_over_the_fast_network():
    assert meet(STEP) == "jwb0038i"
    assert meet(STEP, suffix=None) == "jwb0038"
    assert meet(STEP | {"SLURM_STEP_NODELIST": "jwb[0038-0039].juwels"}) == "jwb0038i.juwels"


def test_an_address_that_was_given_stays():
    assert meet(STEP | {"MASTER_ADDR": "there"}) == "there"
    one_node = STEP | {"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0", "SLURM_LOCALID": "1"}
    assert meet(one_node) == "127.0.0.1"
    assert meet({}) == "127.0.0.1"


def test_variables_of_the_site_are_set_but_not_over_those_of_the_user():
    environment = {"NCCL_IB_TIMEOUT": "22"}
    ranks = join_network(Ranks(), "i", SITE, environment)
    assert environment == {"NCCL_SOCKET_IFNAME": "ib0", "NCCL_IB_TIMEOUT": "22"}
    assert dataclasses.asdict(ranks) == dataclasses.asdict(Ranks())
