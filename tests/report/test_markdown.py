"""Names and results in the model card are data, not markup."""

import yaml

from hpc_llm.report import model_card
from hpc_llm.report.markdown import code, text

EVIL = "a|b`c`<script>x</script>[d](javascript:e) # *f*\n\n# g"


def test_markup_is_escaped() -> None:
    assert text("tokens_per_word 1.25 → 0.98 (−3.4 %)") == "tokens_per_word 1.25 → 0.98 (−3.4 %)"
    assert text("_a_ <b> `c` x|y\n# z") == r"\_a\_ \<b\> \`c\` x\|y \# z"
    assert code("owner/name") == "`owner/name`"
    assert code("a`b``c") == "``` a`b``c ```"


def test_the_card_shows_what_it_is_given() -> None:
    measure = {"value": 1.0, "low": 0.5, "high": 1.5, "n": 3, "unit": "x", "better": "less"}
    summary = {
        "run": EVIL,
        "recipe": EVIL,
        "tokens_per_word": None,
        "phi": None,
        "flops": None,
        "pf_days": None,
        "gpu_hours": None,
        "wall_seconds": None,
        "money": {"amount": 1.0, "currency": EVIL},
        "measures": {EVIL: {EVIL: measure}},
    }
    config = {
        "model": {"path": f"./{EVIL}", "name": EVIL},
        "corpus": {"target": [f"sample:{EVIL}"]},
    }
    card = model_card(summary, config)
    head, body = card.split("---\n", 2)[1:]
    assert yaml.safe_load(head)["base_model"] == EVIL
    assert yaml.safe_load(head)["language"] == [EVIL]
    lines = body.splitlines()
    assert not [line for line in lines if line.startswith("# g")]
    raw = [line for line in lines if "<script>" in line and r"\<script" not in line]
    assert all("``" in line for line in raw)  # in a code span
    assert all(
        r"a\|b" in line for line in lines if "a" in line and "|b" in line and line not in raw
    )
