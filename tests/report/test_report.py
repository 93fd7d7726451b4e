import base64
import copy
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
import yaml
from jinja2 import UndefinedError
from made_up_run import (
    CONFIG,
    RESULTS,
    SUMMARY,
    phi_curve,
    train_result,
    write_events,
    write_record,
    write_run,
)

from hpc_llm.report import model_card, write_model_card, write_report
from hpc_llm.report.page import render
from hpc_llm.report.plots import MOST_POINTS, loss_curves, pareto_front
from hpc_llm.rundir import RunFolder, write_json
from hpc_llm.tracking import read_events

OPTIONAL = ("run", "measures", "target_bpb", "source_bpb", "token_ratio", "stage_seconds")
"""Keys of `summary.json` that older runs lack, or that have a substitute."""


class Page(HTMLParser):
    """The images, the headings, the table rows and the open tags of a page."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.rows, self.text, self.open = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("src", "href") and v]
        if tag == "tr":
            self.rows.append([])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.text.append(data.strip())
            if self.open[-1] == "td":
                self.rows[-1].append(data)

    def row(self, first):
        return next(row for row in self.rows if row and row[0] == first)


@pytest.fixture
def run(tmp_path):
    return write_run(RunFolder(tmp_path / "demo-ru"))


def test_the_page_shows_the_results_and_needs_no_network(run):
    path = write_report(run)
    assert path == run.report
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert len(page.links) == 6  # bpb, forgetting, loss, phi, pareto, cost
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    assert not re.search(r"@import|url\(|<script|<link", html)
    assert "2.94 → 1.89" in page.text
    head = "bpb/target\nbits per byte (lower is better)\nn = 130"
    row = page.row(head)
    assert row[1] == "2.941\n2.816 to 3.066"
    assert row[4] == "1.884\n1.759 to 2.009\n−35.9\xa0%"
    forgotten = page.row(head.replace("bpb/target", "forgetting/source"))
    assert forgotten[1:3] == ["0.311\n0.281 to 0.341", "0.139\n0.109 to 0.169"]  # none at base
    # 2.5e14 FLOPs / 8.64e19; 233 s of 440.7 s
    trained = ["train/lora", "450", "1.84M", "5.21M", "3.214", "2.50×10¹⁴", "2.89×10⁻⁶"]
    assert page.row("train/lora") == [*trained, "0:03:53", "53 %"]
    assert page.row("copied") == ["copied", "1,120"]
    assert page.row("documents") == ["documents", "5,210", "5,210"]
    assert page.row("tokens for the same text") == [
        *("tokens for the same text", "1.00", "0.40", "−59.9\xa0%")
    ]
    assert page.row("vocabulary size") == ["vocabulary size", "4,096", "8,192"]
    assert page.row("sources: focus") == ["sources: focus", "7,000"]
    quantiles = "norms: old (5 %, 50 %, 95 %)"
    assert page.row(quantiles) == [quantiles, "0.91, 1.02, 1.3"]
    assert page.row("r2") == ["r2", "0.31"]
    assert "n/a" in page.text


def test_text_of_the_model_is_escaped(run):
    page = write_report(run).read_text(encoding="utf-8")
    assert "&amp; &lt;живут&gt;" in page
    assert "<живут>" not in page


def test_the_plots_of_the_page_are_files_beside_it(run):
    html = write_report(run).read_text(encoding="utf-8")
    for name in ("measure-bpb", "measure-forgetting", "loss", "phi", "pareto", "cost"):
        svg = (run.report.parent / f"{name}.svg").read_text(encoding="utf-8")
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert base64.b64encode(svg.encode()).decode() in html
    assert "bits per byte (lower is better)" in (run.report.parent / "measure-bpb.svg").read_text()


def test_bars_have_whiskers_where_an_interval_is_known(run):
    plot = run.report.parent / "measure-bpb.svg"
    write_report(run)
    with_intervals = plot.read_text(encoding="utf-8")
    summary = copy.deepcopy(SUMMARY)
    summary["measures"]["bpb/target"]["base"] |= {"low": None, "high": None}
    write_json(run.summary, summary)
    write_report(run)
    assert plot.read_text(encoding="utf-8") != with_intervals  # nothing else has changed


def test_the_same_run_gives_the_same_page(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_an_empty_run_folder_still_gives_a_page(tmp_path):
    page = Page(write_report(RunFolder(tmp_path / "empty")).read_text(encoding="utf-8"))
    assert page.links == []
    assert page.rows == []
    assert "empty" in page.text


def test_a_summary_of_nulls_and_odd_results_is_shown_as_not_known(tmp_path):
    run = RunFolder(tmp_path / "half")
    nulls = {key: None for key in SUMMARY} | {"target_bpb": {"base": 2.0, "lora": None}}
    write_json(run.summary, nulls)
    for stage in ("corpus", "tokenizer", "transplant", "train/lora"):
        write_record(run, stage, None, seconds=None)
    write_json(run.path / "correct" / "phi.json", {"phi": None, "curve": []})
    page = Page(write_report(run).read_text(encoding="utf-8"))
    head = "bpb/target\nbits per byte (lower is better)\nn = n/a"
    assert page.row(head) == [head, "2.000", "n/a\n\nn/a"]
    assert len(page.links) == 1


def test_a_curve_without_source_text_has_no_pareto_front(tmp_path):
    run = RunFolder(tmp_path / "target-only")
    missing = dict.fromkeys(("source_bpb", "source_low", "source_high"))
    curve = [point | missing for point in phi_curve()]
    write_json(run.path / "correct" / "phi.json", {"phi": SUMMARY["phi"], "curve": curve})
    write_report(run)
    assert [path.name for path in run.report.parent.glob("*.svg")] == ["phi.svg"]


def test_a_stage_that_was_rerun_has_one_row_with_its_newest_result(run):
    write_record(run, "train/lora", train_result(7, 2.5e14, 5_210_112, 3.2))
    page = Page(write_report(run).read_text(encoding="utf-8"))
    rows = [row for row in page.rows if row and row[0] == "train/lora"]
    assert [row[1] for row in rows] == ["7"]


def test_loss_curves_count_tokens_on_and_keep_their_mean(tmp_path):
    run = RunFolder(tmp_path)
    write_events(run)
    curves = loss_curves(read_events(run.events))
    assert list(curves) == ["embeddings", "lora"]
    assert curves["embeddings"][0][-1] == 240 * 4096
    assert curves["lora"][0][0] == 250 * 4096

    many = [
        {"event": "train", "stage": "x", "tokens": i, "metrics": {"train/loss": float(i % 2)}}
        for i in range(4 * MOST_POINTS)
    ]
    tokens, loss = loss_curves(many)["x"]
    assert len(tokens) == MOST_POINTS
    assert set(loss) == {0.5}
    assert tokens[0] == 1.5


def test_the_pareto_front_is_what_nothing_beats():
    points = [(1.0, 3.0), (1.1, 2.0), (1.2, 2.5), (1.1, 2.2), (1.4, 1.0), (1.5, 1.0)]
    beaten = {
        p for p in points for q in points if q != p and q[0] <= p[0] and q[1] <= p[1]
    }  # by the definition
    assert pareto_front(points) == sorted(set(points) - beaten)


def test_the_model_card_has_a_header_the_hub_can_read(run, tmp_path):
    write_model_card(run, tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["library_name"] == "transformers"
    assert header["base_model"] == "tiny-en"
    assert header["language"] == ["ru", "en"]
    assert "/home/someone" not in card
    assert "| bpb/target | corrected | 1.890 (1.765 to 2.015) | −35.7\xa0% |" in card
    assert "| forgetting/source | corrected | 0.111 (0.081 to 0.141) |  |" in card


def test_the_model_card_names_a_hub_model_and_omits_what_is_not_known():
    hub = {"model": {"path": "upstage/SOLAR-10.7B-v1.0"}, "corpus": {"target": ["data/*.jsonl"]}}
    header = yaml.safe_load(model_card(SUMMARY, hub).split("---\n")[1])
    assert header["base_model"] == "upstage/SOLAR-10.7B-v1.0"
    assert "language" not in header
    bare = yaml.safe_load(model_card(dict.fromkeys(SUMMARY), {}).split("---\n")[1])
    assert "base_model" not in bare


@pytest.mark.parametrize(
    ("stage", "key"), [("tokenizer", "token_ratio"), ("tokenizer", "old"), ("train/lora", "loss")]
)
def test_a_key_missing_in_a_record_is_an_error_not_an_empty_place(run, stage, key):
    result = {name: value for name, value in RESULTS[stage][1].items() if name != key}
    write_record(run, stage, result)
    with pytest.raises(KeyError, match=key):
        write_report(run)


@pytest.mark.parametrize("key", [key for key in SUMMARY if key not in OPTIONAL])
def test_a_key_missing_in_the_summary_is_an_error_not_an_empty_place(run, key):
    write_json(run.summary, {name: value for name, value in SUMMARY.items() if name != key})
    with pytest.raises(KeyError, match=key):
        write_report(run)


def test_a_name_missing_in_a_template_is_an_error():
    with pytest.raises(UndefinedError, match="base_model"):
        render("model_card.md.j2", {"name": "x"})


def test_the_configuration_is_on_the_page(run):
    assert CONFIG.splitlines()[1] in write_report(run).read_text(encoding="utf-8")


def test_importing_the_room_imports_no_heavy_library():
    heavy = ("matplotlib", "rich", "jinja2", "wandb", "torch")
    code = f"import sys, hpc_llm.report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
