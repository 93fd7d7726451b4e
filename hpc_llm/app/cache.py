"""`hpc-llm cache [RUNS_DIR] [--keep SIZE]`: list and clean the shared cache of stages."""

import re
import sys
from datetime import datetime
from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.distributed import visible
from hpc_llm.errors import UserError

__all__ = ["run_cache"]

SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)B?", re.IGNORECASE)
BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def run_cache(arguments: Arguments) -> int:
    """Print the entries of the shared cache; with --keep remove the oldest unused ones."""
    from hpc_llm.pipeline.cache import SharedCache

    folders = arguments.overrides or ["runs"]
    if len(folders) > 1:
        raise UserError("cache", " ".join(folders), "takes one folder of runs", "pass one")
    runs = Path(folders[0])
    if not runs.is_dir():
        raise UserError("cache", runs, "no such folder", "pass the runs_dir of your runs")
    cache = SharedCache.of(str(runs))
    if arguments.keep is not None:
        freed = cache.clean(_bytes(arguments.keep))
        print(f"removed {len(freed)} {'entry' if len(freed) == 1 else 'entries'}")
    rows = [(e.path.name, e.size, e.last_used, len(e.users())) for e in cache.entries()]
    _print(cache.path, rows)
    return 0


def _bytes(text: str) -> int:
    found = SIZE.fullmatch(text)
    if found is None:
        raise UserError("--keep", text, "must be a size", "for example 200G, or 0")
    return round(float(found[1]) * BYTES[found[2].upper()])


def _print(path: Path, rows: list[tuple[str, int, float, int]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{path}: {_size(sum(row[1] for row in rows))}", title_justify="left")
    for name in ("stage and fingerprint", "size", "last used", "used by"):
        table.add_column(name, justify="right" if name == "size" else "left")
    for name, size, used, users in rows:
        when = datetime.fromtimestamp(used).astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(Text(visible(name)), _size(size), when, f"{users} run{'s' * (users != 1)}")
    Console(width=None if sys.stdout.isatty() else 1000, highlight=False).print(table)


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
