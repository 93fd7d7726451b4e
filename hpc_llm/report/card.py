"""The model card: the `README.md` that lies beside the weights and that the hub shows."""

from pathlib import Path
from typing import Any

from hpc_llm.report.gather import gather
from hpc_llm.report.page import TEMPLATES
from hpc_llm.report.sections import bpb_table
from hpc_llm.report.tables import figures
from hpc_llm.rundir import RunFolder, write_text

__all__ = ["model_card", "write_model_card"]


def model_card(summary: dict[str, Any], config: dict[str, Any]) -> str:
    """Return the card as Markdown with its YAML header.

    `summary` is `summary.json` and `config` the resolved configuration, which names the base model
    and, for the text that comes with the package, the language. What is not known is left out.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,  # Markdown, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md.j2").render(
        name=summary.get("run") or "adapted model",
        recipe=summary.get("recipe"),
        base_model=_base_model(config.get("model") or {}),
        language=_languages(config.get("corpus") or {}),
        bpb=bpb_table(summary),
        figures=figures(summary),
        has_phi=(summary.get("phi") or {}).get("value") is not None,
    )


def _base_model(model: dict[str, Any]) -> str | None:
    """Return the hub id of the base model, or a local model's name without its folders."""
    path = model.get("path")
    if not path:
        return None
    is_hub_id = path.count("/") == 1 and not path.startswith((".", "/", "~"))
    name: str = path if is_hub_id else model.get("name") or Path(path).name
    return name


def _languages(corpus: dict[str, Any]) -> list[str]:
    """Return the languages of `sample:xx` entries; other text does not say its language."""
    entries = [*(corpus.get("target") or []), *(corpus.get("source") or [])]
    found = [entry.removeprefix("sample:") for entry in entries if entry.startswith("sample:")]
    return list(dict.fromkeys(found))


def write_model_card(folder: RunFolder, target: Path) -> None:
    """Write the card of the run in `folder` to the file `target`, or into it if it is a folder."""
    data = gather(folder)
    path = target / "README.md" if target.is_dir() else target
    write_text(path, model_card({**data.summary, "run": data.name}, data.config))
