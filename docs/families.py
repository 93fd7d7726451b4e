"""Write the table of docs/families.md: `python docs/families.py [FAMILY ...]`, else all families.

It adapts a tiny model of each causal family of the installed transformers, which takes about five
minutes. The tests compare each row with what happens.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "families.md"
HEAD = "| family | batches | FLOPs | remark |\n| --- | --- | --- | --- |\n"


def row(family: str) -> str:
    """Return the row of a family."""
    import families

    cells = ("not tried", "", families.UNTRIED.get(family, ""))
    if family not in families.UNTRIED:
        if reason := families.refusal(family):
            cells = ("refused", "", reason)
        else:
            with tempfile.TemporaryDirectory() as folder:
                found = families.adapt(family, Path(folder))
            cells = (found.batches, found.flops, "")
    return f"| `{family}` | " + " | ".join(cells) + " |\n"


def main() -> None:
    """Write the table into the page."""
    sys.path.insert(0, str(ROOT / "tests"))
    import families

    text = PAGE.read_text(encoding="utf-8")
    before, _, table = text.partition(HEAD)
    rows = {line.split("`")[1]: line + "\n" for line in table.splitlines()}
    for family in sys.argv[1:] or sorted(families.FAMILIES):
        rows[family] = row(family)
        print(rows[family], end="", flush=True)
    PAGE.write_text(before + HEAD + "".join(rows[f] for f in sorted(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
