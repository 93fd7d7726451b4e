"""Every causal family of the installed transformers: what docs/families.md says of it, happens.

After a change of transformers: `python docs/families.py` writes the table again.
"""

import re
from pathlib import Path

import families
import pytest
from errors import user_error

from hpc_llm.surgery.families import causal_families, check_family

PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
ROW = re.compile(r"^\| `(\S+)` \| (.+?) \| (.*?) \| (.*?) \|$", re.MULTILINE)
TABLE = {name: (trains, flops, why) for name, trains, flops, why in ROW.findall(PAGE.read_text())}
TRAINED = [name for name, row in TABLE.items() if row[0] in ("packed", "grouped")]


def test_the_page_has_every_family():
    assert set(TABLE) == set(families.FAMILIES) == set(causal_families())
    assert len(TRAINED) >= 60


@pytest.mark.parametrize("family", TRAINED)
def test_a_family_is_adapted_as_the_page_says(family, tmp_path):
    found = families.adapt(family, tmp_path)
    assert (found.batches, found.flops) == TABLE[family][:2]


@pytest.mark.parametrize("family", sorted(set(TABLE) - set(TRAINED) - set(families.UNTRIED)))
def test_a_refused_family_is_refused_by_its_configuration_alone(family):
    assert families.refusal(family) == TABLE[family][2]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_encoder_is_refused_unless_it_is_a_decoder(family):
    check_family({"model_type": family, "is_decoder": True}, "folder")
    with user_error("model.path", "is_decoder", value="folder"):
        check_family({"model_type": family}, "folder")


def test_a_family_that_transformers_lacks_is_refused():
    with user_error("model.path", "llamma", "model_type"):
        check_family({"model_type": "llamma"}, "folder")
    check_family({"model_type": "llamma", "auto_map": {"AutoModelForCausalLM": "m.M"}}, "folder")
