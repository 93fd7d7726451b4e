"""The stage table: the kinds of stages, and the stages of a configuration.

A row holds what the runner, the chain of Slurm jobs, sweeps, `status` and the report need to know
about a stage; `outline` lists the stages of a run in order. Nothing here reads files or needs
torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings import RunConfig
from hpc_llm.training.checkpoints.branches import branch_marker
from hpc_llm.vocabulary.modes import mode_of

__all__ = ["COMPOSED", "ROWS", "Entry", "Row", "choose_names", "outline", "point_of", "stage_names"]


COMPOSED = "composed"
"""The point of a run after its composition."""
CARD = "model/README.md"  # written by the report, after the stage that writes model/


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of stage."""

    module: str
    """The module of `hpc_llm.stages` whose `run(context, name)` does the work."""
    verb: str
    """The verb that runs it alone."""
    part: str
    """Its part in a chain of Slurm jobs (`hpc_llm.settings.launch.PLACES`)."""
    all_ranks: bool = False
    """Whether every rank takes part; otherwise rank 0 works and the others wait."""
    light: bool = False
    """Whether it runs without torch."""
    shared: bool = True
    """Whether its result may be linked from the shared cache instead of being recomputed."""

    @property
    def trains(self) -> bool:
        """Whether it is a training stage, with batches and checkpoints."""
        return self.verb == "train"


ROWS = {
    "corpus": Row(module="corpus", verb="corpus", part="corpus", light=True),
    "tokenizer": Row(module="tokenizer", verb="tokenizer", part="tokenizer", light=True),
    "measure_tokenizer": Row(
        module="measure_tokenizer", verb="tokenizer", part="tokenizer", light=True
    ),
    "transplant": Row(module="transplant", verb="transplant", part="transplant"),
    "pretrain": Row(module="pretrain", verb="train", part="pretrain", all_ranks=True),
    "train": Row(module="train", verb="train", part="train", all_ranks=True),
    "measure_start": Row(module="evaluate", verb="evaluate", part="transplant", all_ranks=True),
    "evaluate": Row(module="evaluate", verb="evaluate", part="result", all_ranks=True),
    "compose": Row(module="compose", verb="compose", part="transplant"),
    "correct": Row(module="correct", verb="correct", part="result", all_ranks=True, shared=False),
    "report": Row(module="report", verb="report", part="result", light=True, shared=False),
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A stage of a run: its name, its row, its inputs and its files."""

    name: str
    """Its name in the record, and its folder: train/lora."""
    row: Row
    needs: tuple[str, ...]
    """Stages whose results it reads."""
    outputs: tuple[str, ...]
    """Files, relative to the run folder, that must exist for it to be done."""
    owns: tuple[str, ...]
    """Files and folders it writes: moved aside, not overwritten, when its settings change."""


def outline(cfg: RunConfig) -> list[Entry]:
    """Return the stages of `cfg` in order, without reading its files.

    Those of its composition, or else of its recipe.
    """
    return _recipe(cfg) if cfg.compose is None else _composition(cfg)


def _composition(cfg: RunConfig) -> list[Entry]:
    """Return the stages of a composition: with text, its reference and its result are evaluated."""
    outputs = ("compose/model/config.json",)
    made = Entry(name="compose", row=ROWS["compose"], needs=(), outputs=outputs, owns=("compose",))
    if not cfg.corpus.texts_in("target"):
        return [made]
    corpus = Entry(
        name="corpus", row=ROWS["corpus"], needs=(), outputs=_target_text(cfg), owns=("corpus",)
    )
    points = {"base": ("corpus",), COMPOSED: ("corpus", "compose", "evaluate/base")}
    if cfg.compose.reference is None:
        points = {COMPOSED: ("corpus", "compose")}
    evaluated = [_evaluation(cfg, "evaluate", point, needs) for point, needs in points.items()]
    return [corpus, made, *evaluated]


def _evaluation(cfg: RunConfig, kind: str, point: str, needs: tuple[str, ...]) -> Entry:
    name, tasks = f"evaluate/{point}", cfg.evaluation.tasks_at(point)
    files = (f"{name}.json", f"{name}.npz")
    found = (f"{name}/{task}.{end}" for task in tasks for end in ("json", "jsonl"))
    own = (*files, name) if tasks else files
    return Entry(name=name, row=ROWS[kind], needs=needs, outputs=(*files, *found), owns=own)


def _recipe(cfg: RunConfig) -> list[Entry]:
    """Return the stages of a recipe."""
    entries: list[Entry] = []

    def add(
        kind: str,
        name: str,
        needs: tuple[str, ...],
        outputs: tuple[str, ...],
        owns: tuple[str, ...] = (),
    ) -> None:
        row, mine = ROWS[kind], owns or (name,)
        entries.append(Entry(name=name, row=row, needs=needs, outputs=outputs, owns=mine))

    def evaluate(kind: str, point: str, *needs: str) -> None:
        base = () if point == "base" else ("evaluate/base",)  # to which forgetting is relative
        entries.append(_evaluation(cfg, kind, point, (*needs, *base)))

    add("corpus", "corpus", (), _target_text(cfg))
    base: tuple[str, ...] = ()
    if cfg.pretraining is not None:
        base = (f"train/{cfg.pretraining}",)
        add("pretrain", base[0], ("corpus",), (f"{base[0]}/done.json",))
    shards = tuple(f"tokenizer/shards/{text}.json" for text in training_texts(cfg))
    exported = ("tokenizer/tokenizer.json",) if mode_of(cfg).changes else ()  # else the base's
    add("tokenizer", "tokenizer", ("corpus", *base), (*exported, *shards))
    measures = "evaluate/tokenizer.json"
    needs = ("corpus", "tokenizer", *base)
    add("measure_tokenizer", "evaluate/tokenizer", needs, (measures,), (measures,))
    evaluate("measure_start", "base", "corpus", "tokenizer", *base)
    files = ("transplant/config.json", "transplant/new_rows.npy")
    add("transplant", "transplant", ("tokenizer", *base), files)
    evaluate("measure_start", "transplant", "transplant")
    last = "transplant"
    for name in cfg.adaptation:
        parent = cfg.parent(name).partition("@")[0]
        start = parent if parent == "transplant" else f"train/{parent}"
        last = f"train/{name}"
        kept = (branch_marker(last, step) for step in cfg.branch_steps(name))
        add("train", last, (start,), (f"{last}/done.json", *kept))
        evaluate("evaluate", name, last)
    files = ("correct/phi.json", "model/config.json")
    add("correct", "correct", (last,), files, ("correct", "model"))
    evaluate("evaluate", "corrected", "correct")
    views = ("summary.json", "report/index.html", CARD)
    every = tuple(entry.name for entry in entries)
    add("report", "report", every, views, ("report", "summary.json", CARD))
    return entries


def training_texts(cfg: RunConfig) -> list[str]:
    """Return the texts on which the adapted model trains, in a fixed order."""
    target = cfg.corpus.texts_in("target") or ["target"]
    used = {text for name in cfg.adaptation for text in cfg.text_of(name).names}
    return [*target, *(text for text in cfg.corpus.names if text not in target and text in used)]


def _target_text(cfg: RunConfig) -> tuple[str, ...]:
    """Return the files of the training text in the languages that the model is adapted to."""
    texts = cfg.corpus.texts_in("target") or ["target"]
    return tuple(f"corpus/{text}/train.jsonl" for text in texts)


def stage_names(cfg: RunConfig) -> list[str]:
    """Return the names of the stages of `cfg` in order, without reading its files."""
    return [entry.name for entry in outline(cfg)]


def point_of(stage: str) -> str:
    """Return the point of a run to which a stage leads: lora for train/lora and evaluate/lora."""
    return stage.rsplit("/", 1)[-1]


def choose_names(known: Sequence[str], names: Sequence[str] | None) -> set[str]:
    """Return the named stages; all for None. Raises `UserError` for an unknown stage."""
    for name in names or ():
        if name not in known:
            raise UserError("--stages", name, "no such stage", f"choose one of {', '.join(known)}")
    return set(known if names is None else names)
