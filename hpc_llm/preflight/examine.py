"""The steps of the preflight: rendezvous, local measurements, collective measurements, judging.

Each step ends when the last rank has reported, or after `preflight.wait_seconds`. Collective
measurements run only if all local ones succeeded, so a broken node does not hang the healthy ones.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict

from hpc_llm.distributed import Ranks, say
from hpc_llm.preflight.judge import judge
from hpc_llm.preflight.measure import host_name, measure_rank
from hpc_llm.preflight.metrics import RankFigures, by_host, hosts_of_ranks
from hpc_llm.preflight.rendezvous import Rendezvous
from hpc_llm.preflight.report import Report
from hpc_llm.preflight.together import add_links, leaders, measure_together
from hpc_llm.settings import RunConfig

__all__ = ["examine"]


def examine(cfg: RunConfig, ranks: Ranks, environment: Mapping[str, str]) -> Report | None:
    """Measure and judge all nodes (collective); return the report on rank 0, None on the others.

    Raises `UserError` on a rank that cannot reach rank 0.
    """
    began = time.monotonic()
    rendezvous = Rendezvous(ranks, cfg.preflight.wait_seconds)
    places = _begin_together(rendezvous, environment)
    alone = _measure_alone(cfg, rendezvous, environment)
    gathered = measure_together(rendezvous, rendezvous.hear("leaders"), cfg.preflight)
    rendezvous.part()
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


def _begin_together(rendezvous: Rendezvous, environment: Mapping[str, str]) -> list[str | None]:
    """Wait for all responding ranks, so that all devices of a node are busy at the same time.

    Rank 0 gets the host of each rank as reported, else as placed by srun.
    """
    rendezvous.post("here", host_name(environment))
    here: list[str | None] = []
    if rendezvous.ranks.is_first:
        here = rendezvous.gather("here")
        rendezvous.announce("begin", here.count(None))
    if silent := rendezvous.hear("begin"):
        say(f"preflight: {silent} of {rendezvous.ranks.world_size} ranks are silent")
    placed = hosts_of_ranks(rendezvous.ranks, environment)
    return [reported or known for reported, known in zip(here, placed, strict=False)]


def _measure_alone(
    cfg: RunConfig, rendezvous: Rendezvous, environment: Mapping[str, str]
) -> list[RankFigures | None]:
    """Measure each rank's own node; rank 0 gets all metrics and announces the leaders."""
    rendezvous.post("alone", asdict(measure_rank(cfg, rendezvous.ranks, environment)))
    if not rendezvous.ranks.is_first:
        return []
    posts = rendezvous.gather("alone", within=cfg.preflight.seconds)
    alone = [RankFigures(**post) if post else None for post in posts]
    rendezvous.announce("leaders", leaders(alone))
    return alone
