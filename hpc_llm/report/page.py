"""`report/index.html`: one page that needs nothing else, and its pictures as files beside it.

Style and pictures stand inside the page, so it can be mailed, printed and read on a phone.
"""

import base64
from pathlib import Path
from typing import Any

from hpc_llm.report.gather import RunData, gather
from hpc_llm.report.plots import Plot, draw
from hpc_llm.report.sections import (
    bpb_table,
    corpus_table,
    count_table,
    stage_table,
    vocabulary_table,
)
from hpc_llm.report.tables import figures
from hpc_llm.report.text import change, decimal
from hpc_llm.rundir import RunFolder, write_text

__all__ = ["TEMPLATES", "write_report"]

TEMPLATES = Path(__file__).parent / "templates"
CHANGES = {
    "target_bpb": "bits per byte, target text",
    "source_bpb": "bits per byte, source text",
    "tokens_per_word": "tokens per word",
}


def write_report(folder: RunFolder) -> Path:
    """Write `report/index.html` and its pictures from what `folder` holds; return the page."""
    from jinja2 import Environment, FileSystemLoader

    data = gather(folder)
    plots = draw(data)
    for plot in plots:
        write_text(folder.report.parent / f"{plot.name}.svg", plot.svg)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    template = environment.get_template("index.html.j2")
    write_text(folder.report, template.render(**_content(data, plots)))
    return folder.report


def _content(data: RunData, plots: list[Plot]) -> dict[str, Any]:
    """Return what the template shows."""
    newest: dict[str, Any] = max(
        data.records.values(), key=lambda record: str(record.get("started")), default={}
    )
    return {
        "name": data.name,
        "recipe": data.summary.get("recipe"),
        "headline": _headline(data.summary),
        "figures": figures(data.summary) if data.summary else {},
        "plots": {plot.name: plot for plot in plots},
        "images": {plot.name: _data_uri(plot.svg) for plot in plots},
        "tables": {
            "bpb": bpb_table(data.summary),
            "stages": stage_table(data),
            "vocabulary": vocabulary_table(data.result("tokenizer")),
            "transplant": count_table(data.result("transplant")),
            "corpus": corpus_table(data.result("corpus")),
        },
        "samples": _samples(data),
        "model": data.summary.get("model"),
        "beta": data.correction.get("beta"),
        "config": data.config_text,
        "versions": newest.get("versions") or {},
        "commit": newest.get("commit"),
    }


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _headline(summary: dict[str, Any]) -> list[dict[str, str]]:
    """Return what changed from the first to the last known figure, for the top of the page."""
    cards = []
    for key, label in CHANGES.items():
        known = [(name, v) for name, v in (summary.get(key) or {}).items() if v is not None]
        if len(known) > 1:
            (first, before), (last, after) = known[0], known[-1]
            value = f"{decimal(before, 2)} → {decimal(after, 2)}"
            note = f"{change(after, before)} from {first} to {last}"
            cards.append({"label": label, "value": value, "note": note})
    return cards


def _samples(data: RunData) -> list[dict[str, str]]:
    """Return the generated texts that any stage recorded, with the stage."""
    return [
        {"stage": stage, **sample}
        for stage in data.records
        for sample in data.result(stage).get("samples") or []
    ]
