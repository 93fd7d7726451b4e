"""The model card: the `README.md` beside the weights, shown by the Hugging Face hub."""

import os
import re
from pathlib import Path
from typing import Any

from hpc_llm.report.gather import gather
from hpc_llm.report.measures import summary_measures
from hpc_llm.report.page import render
from hpc_llm.report.sections import measure_list
from hpc_llm.report.tables import results
from hpc_llm.rundir import RunFolder, write_text

__all__ = ["model_card", "write_model_card"]


def model_card(summary: dict[str, Any], config: dict[str, Any]) -> str:
    """Return the card as Markdown with its YAML header.

    `summary` is `summary.json` and `config` the resolved configuration, which names the base model
    and, for text shipped with the package, the language. Header entries that are not known are
    omitted.
    """
    content = {
        "name": summary["run"] or "adapted model",
        "recipe": summary["recipe"],
        "vocabulary": summary.get("vocabulary") or {"mode": "replace", "changed": True},
        "base_model": _base_model(config.get("model") or {}),
        "language": _languages(config.get("corpus") or {}),
        "measures": measure_list(summary_measures(summary)),
        "results": results(summary),
        "has_phi": bool(summary["phi"]) and summary["phi"]["value"] is not None,
    }
    return render("model_card.md.j2", content)


def _base_model(model: dict[str, Any]) -> str | None:
    """Return the hub id of the base model, or a local model's name without its folders."""
    path = model.get("path")
    if not path:
        return None
    local = Path(os.path.expanduser(path))
    is_local = path.count("/") != 1 or path.startswith((".", "/", "~")) or local.parent.is_dir()
    name: str = path if not is_local else model.get("name") or Path(path).name
    return name


def _languages(corpus: dict[str, Any]) -> list[str]:
    """Return the languages of `sample:xx` entries, and of sources with a code of ISO 639."""
    entries = [*(corpus.get("target") or []), *(corpus.get("source") or [])]
    found = [entry.removeprefix("sample:") for entry in entries if entry.startswith("sample:")]
    names = [source["language"] for source in (corpus.get("sources") or {}).values()]
    found += [name for name in names if re.fullmatch("[a-z]{2,3}", name)]
    return list(dict.fromkeys(found))


def write_model_card(folder: RunFolder, target: Path) -> None:
    """Write the card of the run in `folder` to `target`, a file, or a folder for README.md."""
    data = gather(folder)
    path = target / "README.md" if target.is_dir() else target
    write_text(path, model_card({**data.summary, "run": data.name}, data.config))
