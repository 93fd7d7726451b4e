"""Models that a composition reads: where they are, and whether they are siblings. No torch here."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hpc_llm.accounting.model_file import read_config
from hpc_llm.errors import UserError
from hpc_llm.settings import ModelSettings
from hpc_llm.settings.compose import ModelsSettings
from hpc_llm.surgery.folders import check_base
from hpc_llm.surgery.hub import check_hub_id
from hpc_llm.surgery.trust import check_model_files

__all__ = ["Form", "check_models", "check_siblings", "model_folder", "naming", "settings_for"]

RESULTS = ("compose/model", "model")  # of a run, the one that counts first
FIX = "use a model trained from this base, in its form"


class Form(NamedTuple):
    """What siblings have in common."""

    family: str
    """`model_type` of its configuration."""
    rows: int
    """Rows of its embedding."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shapes of its tensors, by their names in the files."""

    def columns(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor, without its rows if there is one per token."""
        shape = self.shapes.get(name)
        return shape[1:] if shape and shape[0] == self.rows else shape


def model_folder(key: str, path: str) -> str:
    """Return the model at `path`, the value of setting `key`; of a run folder its result.

    Raises `UserError` for a run without one.
    """
    folder = Path(os.path.expanduser(path))
    if not (folder / "config.yaml").is_file():
        return path
    for name in RESULTS:
        if (folder / name / "config.json").is_file():
            return str(folder / name)
    fix = "finish the run, or give a model folder such as its transplant/"
    raise UserError(key, path, "the run has no model/ yet", fix)


def settings_for(path: str, models: ModelSettings) -> ModelSettings:
    """Return `models` for another model: the revision is that of `model.path` only."""
    return replace(models, path=path, revision=None)


@contextmanager
def naming(key: str, path: str) -> Iterator[None]:
    """Raise errors about `model.path` as errors about the setting `key`, whose value is `path`."""
    try:
        yield
    except UserError as error:
        if error.key != "model.path":
            raise
        raise UserError(key, path, error.rule, error.fix) from error


def check_models(settings: ModelsSettings, models: ModelSettings) -> None:
    """Raise `UserError` for models that cannot be read, or are no siblings.

    Of a hub id that is not in the cache only its existence is checked here.
    """
    forms = {}
    for key, path in settings.inputs.items():
        where = model_folder(key, path)
        with naming(key, path):
            check_hub_id(settings_for(where, models))
            check_model_files(where, models)
            shapes = check_base(where)
        if shapes:
            config = read_config(Path(os.path.expanduser(where)) / "config.json")
            rows = int(config.get("vocab_size") or 0)
            forms[key] = Form(str(config.get("model_type")), rows, shapes)
    check_siblings(forms, settings.inputs)


def check_siblings(forms: Mapping[str, Form], paths: Mapping[str, str]) -> None:
    """Raise `UserError` for models of another family or with other sizes than the base.

    Both mappings are by setting; the first of `paths` is the base. Rows of the vocabulary may
    differ.
    """
    first, *others = paths
    for key in others:
        if first in forms and key in forms and (found := _difference(forms[first], forms[key])):
            rule = f"{found[1]}, but {first}={paths[first]} {found[0]}"
            raise UserError(key, paths[key], rule, FIX)


def _difference(base: Form, other: Form) -> tuple[str, str] | None:
    """Return what `base` and what `other` has where they differ; None if they are siblings."""
    if base.family != other.family:
        return f"is {base.family}", f"is {other.family}"
    for name in sorted(base.shapes.keys() | other.shapes.keys()):
        if name.endswith((".weight", ".bias")) and not _is_alike(base, other, name):
            shapes = (form.shapes.get(name) for form in (base, other))
            one, two = ("x".join(map(str, shape)) if shape else "n/a" for shape in shapes)
            return f"has {name} {one}", f"has {name} {two}"
    return None


def _is_alike(base: Form, other: Form, name: str) -> bool:
    """Return whether a tensor has equal sizes but for a row per token; a tied head has none."""
    forms = [form for form in (base, other) if name in form.shapes]
    if len(forms) == 1:
        return forms[0].columns(name) != forms[0].shapes[name]
    one, two = (form.shapes[name] for form in forms)
    return one == two or (
        base.columns(name) == other.columns(name) and (one[0], two[0]) == (base.rows, other.rows)
    )
