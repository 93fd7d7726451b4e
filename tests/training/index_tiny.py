"""Ranks that open indexes of rows, built by them where there is none: prints a JSON list.

`python index_tiny.py FOLDER`: the indexes are beside FOLDER/text, and below the file FOLDER/file.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from hpc_llm.distributed import detect_ranks, set_up_console
from hpc_llm.stages.row_index import open_rows
from hpc_llm.training import process_group
from hpc_llm.training.data.index import RowIndex
from hpc_llm.training.data.packing import RowKey

LENGTHS = np.random.default_rng(1).integers(1, 600, 50_000).astype(np.int32)


def main():
    ranks = detect_ranks(os.environ)
    set_up_console(ranks)
    process_group.start(ranks, 1)
    folder = Path(sys.argv[1])
    found = []
    for prefix in (folder / "text", folder / "text", folder / "file" / "text"):
        index = RowIndex.beside(prefix, RowKey(512, 1), len(LENGTHS))
        rows = open_rows(index, LENGTHS, lambda: 77, ranks)
        found.append(process_group.all_texts("" if rows is None else rows[0].totals.digest))
    if ranks.is_first:
        print(json.dumps(found))
    process_group.end()


if __name__ == "__main__":
    main()
