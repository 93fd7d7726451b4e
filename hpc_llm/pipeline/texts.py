"""Check that each training stage has a text, before a run starts."""

from hpc_llm.errors import UserError
from hpc_llm.settings import RunConfig
from hpc_llm.settings.corpus import LANGUAGES
from hpc_llm.settings.stage import SCRATCH

__all__ = ["check_texts"]


def check_texts(cfg: RunConfig) -> None:
    """Raise `UserError` for a run without a base model, or without a text that a stage reads."""
    if cfg.model.path is None and (cfg.pretraining is None or not cfg.model.architecture):
        raise UserError(
            "model.path",
            "null",
            "no model to adapt",
            "set model.path=FOLDER_OR_HUB_ID, keep a stage with from=scratch and a "
            "model.architecture, or pass no settings for the embedded example",
        )
    for name in filter(None, [cfg.pretraining, *cfg.adaptation]):
        _check_stage_text(cfg, name)


def _check_stage_text(cfg: RunConfig, name: str) -> None:
    """Raise `UserError` for a stage whose text has no files or no name in the corpus."""
    stage, missing = cfg.stages[name], set(cfg.text_of(name).names) - set(cfg.corpus.names)
    key, value = f"stages.{name}.text", stage.text
    for text in sorted(missing - set(LANGUAGES)):
        known = ", ".join(dict.fromkeys([*LANGUAGES, *cfg.corpus.names]))
        rule = f"unknown text {text}; choose one of {known}"
        fix = f"or add it: corpus.texts={{{text}: [FILES]}}"
        raise UserError(key, value, rule, fix)
    if "source" in missing:
        if stage.text is None:
            key, value = "train.replay", cfg.train.replay
        if stage.from_stage == SCRATCH:
            key, value = f"stages.{name}.from", SCRATCH
        fix = "set corpus.source=en.jsonl.gz, or train without it"
        if cfg.corpus.sources:
            fix = "set corpus.source_languages to the language of a source, or train without it"
        raise UserError(key, value, "there is no source text to train on", fix)
