"""The mixture of sources in a plan."""

from dataclasses import replace

from tiny import settings

from hpc_llm.planning.evaluation import plan_evaluation
from hpc_llm.planning.plan import make_plan
from hpc_llm.settings import RunConfig, SourceSettings


def planned(**sources: SourceSettings) -> RunConfig:
    cfg = settings("model=llama-2-7b", "hardware=a100_sxm_80gb")
    known = ["en"] if "english" in sources else []
    return replace(cfg, corpus=replace(cfg.corpus, sources=sources, source_languages=known))


def source(language: str, **changes: float) -> SourceSettings:
    return SourceSettings(files=["a"], language=language, **changes)


def test_shares_and_languages_are_in_the_notes() -> None:
    web, english = source("ru", share=60), source("en", share=20)
    (note,) = (n for n in make_plan(planned(web=web, english=english), rows).notes if "web" in n)
    assert "web (ru) 0.75" in note
    assert "english (en, source) 0.25" in note


def test_evaluation_of_more_sources_takes_longer() -> None:
    few = plan_evaluation(planned(web=source("ru"))).hours
    many = plan_evaluation(planned(**{f"s{i}": source("ru") for i in range(9)})).hours
    assert few is not None
    assert many is not None
    assert few < many < 9 * few


def rows(cfg: RunConfig, old: int) -> int:
    return cfg.tokenizer.vocab_size
