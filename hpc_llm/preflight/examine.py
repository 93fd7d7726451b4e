"""The preflight in the order in which it goes: meet, measure alone, measure together, judge.

Each part ends when the last rank has told what it found, or after `preflight.wait_seconds`. Only
ranks that are well alone measure together, so a broken node does not hang the healthy ones.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict

from hpc_llm.distributed import Ranks, say
from hpc_llm.preflight.figures import RankFigures, by_host, hosts_of_ranks
from hpc_llm.preflight.judge import judge
from hpc_llm.preflight.measure import host_name, measure_rank
from hpc_llm.preflight.meeting import Meeting
from hpc_llm.preflight.report import Report
from hpc_llm.preflight.together import add_links, leaders, measure_together
from hpc_llm.settings import RunConfig

__all__ = ["examine"]


def examine(cfg: RunConfig, ranks: Ranks, environment: Mapping[str, str]) -> Report | None:
    """Measure all nodes and judge them (collective); the report on rank 0, None on the others.

    Raises `UserError` on a rank that rank 0 does not answer.
    """
    began = time.monotonic()
    meeting = Meeting(ranks, cfg.preflight.wait_seconds)
    places = _begin_together(meeting, environment)
    alone = _measure_alone(cfg, meeting, environment)
    gathered = measure_together(meeting, meeting.hear("leaders"), cfg.preflight)
    meeting.part()
    if not ranks.is_first:
        return None
    hosts = by_host(alone, places)
    reduces, failures = add_links(hosts, gathered)
    return Report(
        hosts=hosts,
        problems=judge(hosts, cfg.preflight),
        reduces=reduces,
        failures=failures,
        seconds=time.monotonic() - began,
    )


def _begin_together(meeting: Meeting, environment: Mapping[str, str]) -> list[str | None]:
    """Wait for all ranks that come: the devices of a node are then busy at the same time.

    Rank 0 gets the host of each rank, as it reports it, else as srun has placed it.
    """
    meeting.post("here", host_name(environment))
    here: list[str | None] = []
    if meeting.ranks.is_first:
        here = meeting.gather("here")
        meeting.announce("begin", here.count(None))
    if silent := meeting.hear("begin"):
        say(f"preflight: {silent} of {meeting.ranks.world_size} ranks are silent")
    placed = hosts_of_ranks(meeting.ranks, environment)
    return [told or known for told, known in zip(here, placed, strict=False)]


def _measure_alone(
    cfg: RunConfig, meeting: Meeting, environment: Mapping[str, str]
) -> list[RankFigures | None]:
    """Let each rank measure its own node; rank 0 gets all, and says who goes on together."""
    meeting.post("alone", asdict(measure_rank(cfg, meeting.ranks, environment)))
    if not meeting.ranks.is_first:
        return []
    posts = meeting.gather("alone", within=cfg.preflight.seconds)
    alone = [RankFigures(**post) if post else None for post in posts]
    meeting.announce("leaders", leaders(alone))
    return alone
