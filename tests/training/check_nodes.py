"""Ranks that check node partitioning on made-up nodes: `python check_nodes.py PLACES`.

PLACES is a JSON list of lists of [local rank, ranks of the node], one for each rank. Prints a JSON
list of null, or of key, rule and fix of the error.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import settings

from hpc_llm.distributed import detect_ranks
from hpc_llm.errors import UserError
from hpc_llm.training import process_group
from hpc_llm.training.zero import check_zero

if __name__ == "__main__":
    ranks = detect_ranks(os.environ)
    process_group.start(ranks, 1)
    cfg = settings("experiment=example", "zero=stage3")
    zero = replace(cfg.zero, node_partition=True)
    found = []
    for places in json.loads(sys.argv[1]):
        local, each = places[ranks.rank]
        here = replace(ranks, local_rank=local, local_world_size=each)
        try:
            found.append(check_zero(cfg.train, zero, here, ranks.world_size))
        except UserError as error:
            found.append([error.key, error.rule, error.fix])
    if ranks.is_first:
        print(json.dumps(found))
    process_group.end()
