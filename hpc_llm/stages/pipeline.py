"""The stages of a run in their order, and the fingerprint of each.

A stage's fingerprint covers its own settings and the fingerprints of the stages it needs. So a
changed setting changes the stages that depend on it and no others. How a run is divided among
ranks, how often it logs and where it tracks are left out: they do not change the result.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc_llm.corpus import expand_entries
from hpc_llm.errors import UserError
from hpc_llm.rundir import fingerprint, fingerprint_path
from hpc_llm.settings import RunConfig
from hpc_llm.surgery.folders import check_model_folder

__all__ = ["VERBS", "Stage", "pipeline"]

VERBS = ("corpus", "tokenizer", "transplant", "train", "correct", "evaluate", "report")
LAYOUT = 1  # raised when the files of a stage change, so that old results are made anew

NOT_IN_RESULTS = ("micro_batch_tokens", "log_steps", "checkpoint_minutes", "threads")


@dataclass(frozen=True)
class Stage:
    """One stage: what it is called, which module runs it, and what its result depends on."""

    name: str
    """Its name in the record, and its folder: train/lora."""
    module: str
    """The module of `hpc_llm.stages` whose `run(context, name)` does the work."""
    verb: str
    """The verb that runs it alone."""
    needs: tuple[str, ...]
    """Stages whose results it reads."""
    fingerprint: str
    outputs: tuple[str, ...]
    """Files, relative to the run folder, without which it is not done."""
    owns: tuple[str, ...]
    """What it writes: moved aside, not overwritten, when it runs with other settings."""

    @property
    def all_ranks(self) -> bool:
        """Every rank takes part; otherwise rank 0 works and the others wait."""
        return self.module in ("train", "pretrain")


class _Builder:
    """Collects stages and chains their fingerprints."""

    def __init__(self, seed: int) -> None:
        self.stages: dict[str, Stage] = {}
        self.seed = seed

    def add(
        self,
        name: str,
        needs: tuple[str, ...],
        settings: Any,
        outputs: tuple[str, ...],
        *,
        verb: str | None = None,
        owns: tuple[str, ...] = (),
    ) -> None:
        module = name.split("/")[0]
        before = [self.stages[need].fingerprint for need in needs]
        self.stages[name] = Stage(
            name=name,
            module=module,
            verb=verb or module,
            needs=needs,
            fingerprint=fingerprint(LAYOUT, name, self.seed, settings, before),
            outputs=outputs,
            owns=owns or (name,),
        )


def pipeline(cfg: RunConfig) -> list[Stage]:
    """Return the stages of `cfg`.

    Reads the corpus files and the model folder for their fingerprints and writes nothing. Raises
    `UserError` when a file is missing, or when the model's weights are neither given nor made by
    the recipe.
    """
    build = _Builder(cfg.seed)
    corpus = asdict(cfg.corpus)
    for key in ("target", "source"):
        corpus[key] = _contents(expand_entries(corpus[key], f"corpus.{key}"))
    build.add("corpus", (), corpus, ("corpus/target/train.jsonl",))
    base = _add_base(build, cfg)
    shards = "tokenizer/shards/target.idx"
    outputs = ("tokenizer/tokenizer.json", shards)
    build.add("tokenizer", ("corpus", *base), [cfg.tokenizer, _model_key(cfg)], outputs)
    _add_evaluation(build, cfg, "base", ("corpus", "tokenizer", *base))
    settings = [cfg.transplant, _model_key(cfg), cfg.train.precision]
    build.add("transplant", ("tokenizer", *base), settings, ("transplant/config.json",))
    _add_evaluation(build, cfg, "transplant", ("transplant",))
    before = "transplant"
    for name in cfg.recipe.adaptation:
        build.add(f"train/{name}", (before,), _train_key(cfg, name), (f"train/{name}/done.json",))
        before = f"train/{name}"
        _add_evaluation(build, cfg, name, (before,))
    settings = [cfg.correct, cfg.evaluation]
    outputs = ("correct/phi.json", "model/config.json")
    build.add("correct", (before,), settings, outputs, owns=("correct", "model"))
    _add_evaluation(build, cfg, "corrected", ("correct",))
    figures = [asdict(cfg.hardware), cfg.model.label, cfg.recipe.name]
    outputs = ("summary.json", "report/index.html")
    build.add("report", tuple(build.stages), figures, outputs, owns=("report", "summary.json"))
    return list(build.stages.values())


def _add_base(build: _Builder, cfg: RunConfig) -> tuple[str, ...]:
    """Add the stage that makes the base model, if the recipe has one; return what needs it."""
    if cfg.model.path is not None:
        return ()
    if "pretrain" not in cfg.recipe.stages or not cfg.model.architecture:
        raise UserError(
            "model.path=null: no model to adapt; give model.path=FOLDER_OR_HUB_ID, "
            "or no settings at all for the embedded example"
        )
    settings = [cfg.model.architecture, cfg.tokenizer.model_type, _train_key(cfg, "pretrain")]
    build.add("pretrain", ("corpus",), settings, ("pretrain/done.json",), verb="train")
    return ("pretrain",)


def _add_evaluation(build: _Builder, cfg: RunConfig, point: str, needs: tuple[str, ...]) -> None:
    name = f"evaluate/{point}"
    output = (f"{name}.json",)
    build.add(name, needs, asdict(cfg.evaluation), output, owns=output)


def _train_key(cfg: RunConfig, name: str) -> list[Any]:
    train = asdict(cfg.train)
    shared = {k: v for k, v in train.items() if not isinstance(v, dict)}
    for key in NOT_IN_RESULTS:
        del shared[key]
    return [shared, train[name], asdict(cfg.schedule)]


def _model_key(cfg: RunConfig) -> Any:
    """What stands for the base model: the content of a folder, or a hub id and its revision."""
    if cfg.model.path is None:
        return None
    check_model_folder(cfg.model.path)
    folder = Path(cfg.model.path).expanduser()
    return fingerprint_path(folder) if folder.is_dir() else [cfg.model.path, cfg.model.revision]


def _contents(entries: list[str]) -> list[str]:
    """What stands for corpus entries: the content of files; other entries by their name."""
    paths = [Path(entry) for entry in entries]
    return [
        fingerprint_path(path) if path.is_file() else entry
        for path, entry in zip(paths, entries, strict=True)
    ]
