"""`report/index.html`: one self-contained page; its plots are also files beside it.

Style and plots are embedded, so the page can be mailed, printed and read on a phone.
"""

import base64
from pathlib import Path
from typing import Any

from hpc_llm.report import latex, markdown
from hpc_llm.report.drawing import Plot
from hpc_llm.report.gather import RunData, gather
from hpc_llm.report.measure_plots import measure_plots
from hpc_llm.report.measures import Measures, change_from, first_point, measure_text
from hpc_llm.report.plots import draw
from hpc_llm.report.sections import (
    corpus_table,
    count_table,
    initial_table,
    measure_table,
    mixture_table,
    stage_table,
    tokenizer_table,
    vocabulary_table,
)
from hpc_llm.report.tables import FERTILITY, PER_CHARACTER, results
from hpc_llm.report.text import decimal
from hpc_llm.rundir import RunFolder, write_text

__all__ = ["TEMPLATES", "render", "write_report"]

TEMPLATES = Path(__file__).parent / "templates"
TOKENIZER = "evaluate/tokenizer"
MOST_CARDS = 6  # measures at the top of the page; the table has all


def write_report(folder: RunFolder) -> Path:
    """Write `report/index.html` and its plots from the content of `folder`; return the page."""
    data = gather(folder)
    by_measure, plots = measure_plots(data.measures), draw(data)
    for plot in [*by_measure, *plots]:
        write_text(folder.report.parent / f"{plot.name}.svg", plot.svg)
    text = render("index.html.j2", _content(data, by_measure, plots))
    write_text(folder.report, text)
    return folder.report


def render(template: str, content: dict[str, Any]) -> str:
    """Fill a template; a name that it uses and `content` lacks is an error, not an empty place.

    Templates of HTML escape their values, those of Markdown with the filters `text` and
    `code`, those of LaTeX with `latex`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    html = ".html." in template
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=html,
        trim_blocks=not html,
        lstrip_blocks=not html,
        keep_trailing_newline=not html,
    )
    environment.filters |= {"text": markdown.text, "code": markdown.code, "latex": latex.text}
    return environment.get_template(template).render(content)


def _content(data: RunData, by_measure: list[Plot], plots: list[Plot]) -> dict[str, Any]:
    """Return the values of the template."""
    newest: dict[str, Any] = max(
        data.records.values(),
        key=lambda record: record["started"],
        default={"versions": {}, "commit": None},
    )
    found = results(data.summary) if data.summary else {}
    measured = data.result(TOKENIZER)
    return {
        "name": data.name,
        "recipe": data.summary["recipe"] if data.summary else None,
        "headline": _headline(data.measures, found),
        "results": {
            label: text for label, text in found.items() if label not in (FERTILITY, PER_CHARACTER)
        },
        "measure_plots": by_measure,
        "plots": {plot.name: plot for plot in plots},
        "images": {plot.name: _data_uri(plot.svg) for plot in [*by_measure, *plots]},
        "tables": {
            "measures": measure_table(data.measures),
            "stages": stage_table(data),
            "tokenizers": tokenizer_table(measured),
            "vocabulary": vocabulary_table({} if measured else data.result("tokenizer")),
            "transplant": count_table(data.result("transplant")),
            "initial": initial_table(data.result("transplant")),
            "corpus": corpus_table(data.result("corpus")),
            "mixture": mixture_table(data),
        },
        "samples": _samples(data),
        "model": data.summary["model"] if data.summary else None,
        "objective": data.correction.get("objective"),  # older versions wrote none
        "config": data.config_text,
        "versions": newest["versions"],
        "commit": newest["commit"],
    }


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _headline(measures: Measures, found: dict[str, str]) -> list[dict[str, str]]:
    """Return the cards at the top of the page: measures from first to last point, fertility."""
    cards = []
    for name, column in list(measures.items())[:MOST_CARDS]:
        known = [(point, m) for point, m in column.items() if m["value"] is not None]
        if not known:
            continue
        (first, base), (last, now) = known[0], known[-1]
        value, note = decimal(now["value"], 2), f"after {last}: {measure_text(now)}"
        if first == first_point(measures) and first != last:
            value = f"{decimal(base['value'], 2)} → {decimal(now['value'], 2)}"
            note = f"{change_from(base, now)} from {first} to {last}: {measure_text(now)}"
        cards.append({"label": f"{name}, {now['unit']}", "value": value, "note": note})
    for label in filter(found.__contains__, (FERTILITY, PER_CHARACTER)):
        value, _, note = found[label].partition(" (")
        note = f"{note.rstrip(')')} with the new tokenizer"
        cards.append({"label": label, "value": value, "note": note})
    return cards


def _samples(data: RunData) -> list[dict[str, str]]:
    """Return the generated texts that any stage recorded, with the stage."""
    return [
        {"stage": stage, **sample}
        for stage in data.records
        for sample in data.result(stage).get("samples") or []
    ]
