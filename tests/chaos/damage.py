"""Damage the files of a finished run one by one, run the same command again, and compare.

`make damage` does all of it: every file x every kind of damage, and prints a table.
`tests/app/test_damage.py` does a sample.

After any damage the command gives the same bytes as before, or one line and exit code 2. It is
never silent about a damage that stays, and never ends in a traceback.
"""

import argparse
import hashlib
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import adapt

SETTINGS = ["tracking=off", "run=a"]
SETTINGS += [f"stages.{name}.steps=3" for name in ("pretrain", "embeddings", "lora")]
SETTINGS += ["evaluation.test_bytes=3000"]
VARYING = ("done.json",)  # a copy of the result, with the seconds that it took
VIEWS = ("report/", "summary.json", "model/README.md")  # these show what the run has cost so far
KEPT = ("superseded/",)  # earlier results, moved aside
JOURNALS = ("record.jsonl", "ledger.jsonl", "events.jsonl", "starts.jsonl")


def _flip(data: bytes, rng: random.Random, mask: int) -> bytes:
    if not data:
        return b"\x80"
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]


def _torn_line(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b"x"]
    number = rng.randrange(len(lines))
    lines[number] = lines[number][: max(1, len(lines[number]) // 2)]
    return b"".join(lines)


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "bit": lambda data, rng: _flip(data, rng, 1 << rng.randrange(7)),
    "high bit": lambda data, rng: _flip(data, rng, 0x80),
    "half": lambda data, rng: data[: len(data) // 2],
    "empty": lambda data, rng: b"",
    "removed": lambda data, rng: None,
    "torn line": _torn_line,
    "garbage": lambda data, rng: rng.randbytes(max(1, len(data))),
    "another run's": lambda data, rng: data,  # replaced in `strike`
}


def strike(folder: Path, name: str, kind: str, other: Path, seed: int = 0) -> bool:
    """Damage a file of `folder`; return False if it is then as before. `other` is another run."""
    path, rng = folder / name, random.Random(f"{seed} {name} {kind}")
    before = path.read_bytes()
    after = DAMAGE[kind](before, rng)
    if kind == "another run's":
        after = (other / name).read_bytes()
    path.unlink()  # a linked file must not change elsewhere
    if after is not None:
        path.write_bytes(after)
    return after != before


def files_of(folder: Path) -> list[str]:
    """Return the files of a run folder, relative to it, without derived and temporary ones."""
    paths = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return [str(p) for p in paths if not any(part.startswith(".") for part in p.parts)]


def group_of(name: str) -> str:
    """Return the stage that a file of a run folder belongs to, or the file itself."""
    parts = name.split("/")
    return "/".join(parts[: 2 if parts[0] == "train" else 1])


def bytes_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files that are equal in equal runs."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in files_of(folder)
        if not name.endswith(VARYING) and not name.startswith((*VIEWS, *JOURNALS, *KEPT))
    }


@dataclass
class Outcome:
    """What came of one damage."""

    name: str
    kind: str
    verdict: str
    """same | refused, or what is wrong."""
    said: str

    @property
    def is_right(self) -> bool:
        """Whether nothing was believed that is damaged."""
        return self.verdict in ("same", "refused")


def judge(code: int, said: str, same: bool, name: str, whole: bool) -> str:
    """Return the verdict on a command that ended with `code` and said `said`.

    `same`: its results have the same bytes as before; `whole`: the damaged file, too.
    """
    if "Traceback" in said:
        return "traceback"
    if code == 2:
        lines = [line for line in said.splitlines() if line.startswith("hpc-llm:")]
        return "refused" if len(lines) == 1 else "several lines"
    if code:
        return f"exit code {code}"
    if not same:
        return "other bytes"
    named = name in said or (name == "record.jsonl" and "settings changed" in said)
    return "same" if whole or named else "silent"


def again(source: Path, runs: Path, name: str, kind: str, other: Path) -> Outcome | None:
    """Damage a copy of the run folder `source` and run the command again; None: no damage."""
    folder = runs / "a"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    if not strike(folder, name, kind, other):
        return None
    done = adapt(runs, *SETTINGS, check=False)
    same = bytes_of(folder) == bytes_of(source)
    unlike = name.endswith(VARYING) or name.startswith((*VIEWS, *JOURNALS))
    whole = name == "starts.jsonl" or (not unlike and same)
    return Outcome(name, kind, judge(done.returncode, done.stderr, same, name, whole), done.stderr)


def two_runs(runs: Path) -> tuple[Path, Path]:
    """Make a finished run and one of another seed; return their folders, moved from their place."""
    found = []
    for name, seed in (("source", 1), ("other", 2)):
        adapt(runs, *SETTINGS, f"seed={seed}")
        found.append((runs / "a").rename(runs / name))
    return found[0], found[1]


def whole_matrix(runs: Path, only: str = "") -> Iterator[Outcome]:
    """Yield the outcome of every damage of every file of a tiny run."""
    source, other = two_runs(runs)
    for name in files_of(source):
        for kind in DAMAGE if re.search(only, name) else ():
            outcome = again(source, runs, name, kind, other)
            if outcome is not None:
                yield outcome


def main() -> int:
    """Print a line for each wrong outcome and a table; 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="files whose path matches this")
    asked = parser.parse_args()
    verdicts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="damage-") as folder:
        for outcome in whole_matrix(Path(folder), asked.only):
            verdicts[group_of(outcome.name), outcome.verdict] += 1
            if not outcome.is_right:
                print(f"{outcome.name}: {outcome.kind}: {outcome.verdict}: {outcome.said[-2000:]}")
    rows = (f"| {group} | {verdict} | {n} |" for (group, verdict), n in sorted(verdicts.items()))
    print("\n".join(rows))
    return 1 if {verdict for _, verdict in verdicts} - {"same", "refused"} else 0


if __name__ == "__main__":
    sys.exit(main())
