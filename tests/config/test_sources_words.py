"""Sources of the corpus on the command line."""

import re
from pathlib import Path

import pytest
from errors import user_error

from hpc_llm import config
from hpc_llm.settings import SourceSettings

WEB = ("corpus.sources.web.files=web.jsonl", "corpus.sources.web.language=ru")


def composed(*overrides):
    return config.typed(config.compose(list(overrides)))


def test_a_source_is_given_field_by_field_or_whole():
    whole = "corpus.sources.wiki={files: [a.jsonl, b], language: kk, repeat: 2}"
    cfg = composed(*WEB, whole, "corpus.sources.web.share=0.5")
    assert cfg.corpus.sources == {
        "web": SourceSettings(files=["web.jsonl"], language="ru", share=0.5),
        "wiki": SourceSettings(files=["a.jsonl", "b"], language="kk", repeat=2.0),
    }


def test_a_source_survives_the_configuration_of_a_run_folder(tmp_path):
    cfg = composed(*WEB)
    config.write(cfg, tmp_path / "config.yaml")
    assert config.load(tmp_path / "config.yaml").corpus == cfg.corpus


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("corpus.sources.web.shar=0.5", "corpus.sources.web.shar"),
        ("corpus.sources.web.share=half", "corpus.sources.web.share"),
        ("corpus.sources.web.share=0", "corpus.sources.web.share"),
        ("train.replay=0.1", "train.replay"),
    ],
)
def test_a_wrong_word_is_named(word, key):
    with user_error(key):
        composed(*WEB, word)


def test_the_nearest_field_of_a_source_is_named():
    with user_error("corpus.sources.web.shar", "share"):
        composed(*WEB, "corpus.sources.web.shar=0.5")


def test_a_group_of_settings_is_no_value():
    with user_error("train.steps", "train.steps.full"):
        composed(*WEB, "train.steps=4")


def test_the_mixture_of_the_documentation_composes(tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[2] / "docs/recipe.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (text,) = (block for block in blocks if "experiment=mixture" in block)
    folder = tmp_path / "conf/experiment"
    folder.mkdir(parents=True)
    (folder / "mixture.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path))
    corpus = composed("experiment=mixture").corpus
    assert corpus.texts_in("source") == ["english", "code"]
    shares = corpus.shares(lambda name: 100)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["wiki"] == pytest.approx(3 * shares["books"])


def test_shares_are_swept():
    assert len(list(config.combinations([*WEB, "corpus.sources.web.share=0.1,0.2"]))) == 2
