"""The verb `table`: rows and seeds of a YAML file as runs, and one table of them."""

import json
import re
import time
from pathlib import Path

import pytest
import yaml
from errors import user_error
from tiny import TINY, hpc_llm

from hpc_llm.app.main import main
from hpc_llm.app.table_trials import compose_table, refuse_other_documents, table_of, with_trials
from hpc_llm.app.trials import plan_trials
from hpc_llm.errors import EXIT_USER
from hpc_llm.report.latex import text as latex
from hpc_llm.rundir import conf_files
from hpc_llm.settings.table import load_table
from hpc_llm.stages.table import rank_agreement

LOW = ["transplant=replace"]
ROWS = [
    {"label": "base", "overrides": LOW, "point": "base"},
    {"group": "A & B", "label": "mean_1", "overrides": LOW, "point": "embeddings"},
    {"group": "A & B", "label": "LoRA", "overrides": LOW, "point": "lora"},
    {"group": "A & B", "label": "LoRA, phi", "overrides": LOW, "point": "corrected"},
    {
        "group": "C",
        "label": "end to end",
        "overrides": ["recipe=end_to_end_lora"],
        "point": "lora",
        "against": "LoRA",
    },
]
MODEL = ["model.path=MODEL", "corpus.target=a.jsonl", "corpus.source=b.jsonl"]


@pytest.fixture
def table_file(tmp_path, monkeypatch):
    """Return a function that writes a table `mine` into a plug-in folder."""
    folder = tmp_path / "plugin/conf/table"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path / "plugin"))

    def write(rows=ROWS, **settings):
        content = {"seeds": [1], **settings, "rows": rows}
        (folder / "mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    return write


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model folder for tables: the tiny example's base."""
    runs = tmp_path_factory.mktemp("base")
    words = [*TINY, f"runs_dir={runs}", "run=base", "tracking=off", "--stages"]
    hpc_llm("adapt", *words, "corpus,train/pretrain")
    return runs / "base/train/pretrain/model"


def small(base: Path, runs: Path) -> list[str]:
    return [
        "table=mine",
        f"model.path={base}",
        f"runs_dir={runs}",
        "corpus=sample",
        "corpus.max_documents=60",
        "tokenizer.vocab_size=512",
        "train.sequence_length=256",
        "train.batch_tokens=1024",
        "train.steps.embeddings=3",
        "train.steps.adapter=4",
        "evaluation.test_bytes=4000",
        "evaluation.tune_bytes=2000",
        "correct.grid=[0.5,1.0,1.5]",
        "correct.bootstrap_samples=50",
        "tracking=off",
    ]


def test_a_table_is_complete_and_a_second_call_runs_nothing(base, tmp_path, table_file):
    table_file(title="50 % & more", early_point="embeddings", rows=ROWS[:4])
    words = small(base, tmp_path / "runs")
    hpc_llm("table", *words)
    table_file(title="50 % & more")  # a row more: the others are kept
    hpc_llm("table", *words)
    folder = tmp_path / "runs/mine"
    found = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    rows = {row["label"]: row for row in found["rows"]}
    assert list(rows) == [row["label"] for row in ROWS]
    for row in rows.values():
        assert row["finished"] == row["runs"] == 1
        assert {"bpb/target", "bpb/source"} <= row["measures"].keys()
        assert row["hours"] > 0 or row["label"] == "base"
        assert row["without_costs_of"] == []
    run = json.loads((folder / "0/evaluate/lora.json").read_text())["measures"]["bpb/target"]
    own = rows["LoRA"]["measures"]["bpb/target"]
    assert own["value"] == pytest.approx(run["value"], rel=1e-12)
    assert own["low"] < own["value"] < own["high"]
    change = rows["LoRA"]["difference"]["bpb/target"]["value"]
    before = rows["mean_1"]["measures"]["bpb/target"]["value"]
    assert change == pytest.approx(own["value"] - before, rel=1e-9)
    assert rows["base"]["flops"] == 0 < rows["mean_1"]["flops"] < rows["LoRA"]["flops"]
    assert rows["base"]["difference"] == {} == rows["mean_1"]["difference"]
    assert rows["end to end"]["tokens"] == pytest.approx(rows["LoRA"]["tokens"], rel=0.1)
    _check_phi(folder / "0", rows)
    _check_round_trip(folder / "0")
    _check_views(folder)
    started = (folder / "local.jsonl").read_bytes()
    begun = time.monotonic()
    assert main(["table", *words]) == 0
    assert time.monotonic() - begun < 60
    assert (folder / "local.jsonl").read_bytes() == started  # no run was started
    (folder / "table.md").unlink()
    assert main(["table", str(folder)]) == 0
    assert (folder / "table.md").is_file()


def _check_phi(run, rows):
    """On the text on which phi is chosen, the best factor is not worse than 1."""
    found = json.loads((run / "correct/phi.json").read_text())
    assert rows["LoRA, phi"]["phi"] == [found["phi"]["value"]]
    curve = {one["phi"]: one["target_bpb"] for one in found["curve"]}
    assert min(curve.values()) == curve[found["best"]] <= curve[1.0]


def _check_round_trip(run):
    lines = [json.loads(line) for line in (run / "record.jsonl").read_text().splitlines()]
    tokenizer = next(line["result"] for line in lines if line["stage"] == "tokenizer")
    assert tokenizer["new"]["round_trip"] == 1.0


def _check_views(folder):
    texts = {
        end: (folder / f"table.{end}").read_text(encoding="utf-8") for end in ("md", "html", "tex")
    }
    assert "50 % &amp; more" in texts["html"]
    assert r"50 \% \& more" in texts["tex"]
    for line in (line for line in texts["md"].splitlines() if line.startswith("|")):
        assert line.count("|") == texts["md"].splitlines()[2].count("|")
    rows = [line for line in texts["tex"].splitlines() if line.endswith(r"\\")]
    assert len(rows) == len(ROWS) + 2  # and the groups
    assert all("mean" not in line or r"mean\_1" in line for line in rows)


@pytest.mark.parametrize("name", sorted(conf_files("table")))
def test_every_row_of_the_tables_composes(name):
    table, words = table_of([f"table={name}", *MODEL])
    composed = compose_table(table, words)
    rows = {one.values["row"] for one in composed}
    assert len(composed) == len(table.seeds) * len(rows)
    assert {one.cfg.seed for one in composed} == set(table.seeds)
    assert {one.cfg.corpus.seed for one in composed} == {table.seeds[0]}
    for one in composed:
        assert "report" not in one.names
        assert one.names[0] == "corpus"
    labels = [row.label for row in table.rows]
    assert all(table.reference(row) in (None, *labels) for row in table.rows)


def test_the_lecture_trains_the_rows_of_a_group_on_as_many_tokens():
    steps = ["train.steps.embeddings=60", "train.steps.adapter=120"]
    table, words = table_of(["table=lecture", "table.seeds=[1]", *MODEL, *steps])
    trials = {one.values["row"]: one for one in compose_table(table, words)}
    planned = {}
    for row in table.rows:
        first = next(other.label for other in table.rows if other.overrides == row.overrides)
        cfg, point = trials[first].cfg, row.point
        last = cfg.adaptation[-1] if point == "corrected" else point
        names = [] if point == "base" else cfg.lineage(last)
        planned[row.label] = (row.group, sum(cfg.stages[name].steps for name in names))
    for group, count in planned.values():
        assert count == (0 if not group else 60 if group.endswith("(s1)") else 180)


def test_what_the_command_line_sets_replaces_what_the_table_sets_for_all(table_file):
    table_file(overrides=["train.batch_tokens=8192", "train.log_steps=7"])
    table, words = table_of(["table=mine", "table.seeds=3", *MODEL, "train.batch_tokens=4096"])
    cfg = compose_table(table, words)[0].cfg
    assert (cfg.train.batch_tokens, cfg.train.log_steps, cfg.seed) == (4096, 7, 3)


def _changed(number, **changes):
    return [{**row, **changes} if n == number else row for n, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("rows", "key", "mentions"),
    [
        (_changed(1, label="base"), "table.mine.rows[base]", ()),
        (_changed(1, lable="x"), "table.mine.rows[mean_1].lable", ("label",)),
        (_changed(1, point=None), "table.mine.rows[mean_1].point", ()),
        (_changed(1, overrides="a=b"), "table.mine.rows[mean_1].overrides", ()),
        (_changed(1, against="LoRa"), "table.mine.rows[mean_1].against", ("LoRA",)),
        (["base"], "table.mine.rows[1]", ()),
        ([], "table.mine.rows", ()),
    ],
)
def test_a_wrong_file_is_refused(rows, key, mentions, table_file):
    table_file(rows)
    with user_error(key, *mentions):
        load_table("mine")


@pytest.mark.parametrize(
    ("rows", "words", "key", "mentions"),
    [
        (_changed(1, point="embedings"), [], "table.mine.rows[mean_1].point", ("embeddings",)),
        (_changed(4, overrides=["recipe=none"]), [], "table.mine.rows[end to end].point", ()),
        (_changed(1, overrides=["train.bath_tokens=1"]), [], "trial row=mean_1", ("batch_tokens",)),
        (_changed(1, overrides=["seed=1"]), [], "table.mine.rows[mean_1].overrides", ()),
        (_changed(1, overrides=["run=x"]), [], "table.mine.rows[mean_1].overrides", ()),
        (ROWS, ["recipe=two_stage"], "recipe", ("end to end",)),
        (ROWS, ["seed=3"], "seed", ("table.seeds",)),
    ],
)
def test_a_row_that_cannot_run_is_refused(rows, words, key, mentions, table_file):
    table_file(rows)
    table, others = table_of(["table=mine", *MODEL, *words])
    with user_error(key, *mentions):
        compose_table(table, others)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["table=lectur"], "table"),
        (["model.path=x"], "table"),
        (["table=lecture", "table.seeds=[1,1]"], "table.seeds"),
        (["table=lecture", "table.seeds=a"], "table.seeds"),
        (["table=lecture", "table.sedes=[1]"], "table.sedes"),
    ],
)
def test_a_wrong_name_or_seed_is_refused(words, key):
    with user_error(key):
        table_of(words)


def test_rows_on_other_documents_are_refused(base, tmp_path, table_file):
    other = [*LOW, "corpus.test_documents=3"]
    table_file(_changed(1, overrides=other))
    table, words = table_of(small(base, tmp_path / "runs"))
    _, _, planned = plan_trials(compose_table(table, words), "adapt")
    with user_error("trial row=mean_1 seed=1", "row=base"):
        refuse_other_documents(planned)
    assert with_trials(table, planned)["rows"][1]["trials"] == [1]


def test_a_single_run_has_no_table(capsys):
    assert main(["adapt", "table=lecture"]) == EXIT_USER
    assert "hpc-llm: table=lecture: " in capsys.readouterr().err


def test_a_table_has_no_stages_nor_sweeps_and_a_folder_must_be_one(tmp_path, capsys):
    for words in (["-m"], ["--stages", "corpus"], ["--cfg", "job"]):
        assert main(["table", "table=lecture", *words]) == EXIT_USER
        assert re.search(rf"hpc-llm: {words[0]}: ", capsys.readouterr().err)
    assert main(["table", str(tmp_path)]) == EXIT_USER
    assert str(tmp_path) in capsys.readouterr().err


def test_rank_agreement_counts_pairs_in_the_same_order():
    early, late = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]
    rows = [
        {"early": {"m": {"value": one}}, "measures": {"m": {"value": two}}}
        for one, two in zip(early, late, strict=True)
    ]
    found = rank_agreement([{"early": None, "measures": {}}, *rows])
    assert found["tau"] == pytest.approx((5 - 1) / 6)  # of six pairs one is swapped
    assert found["p"] == pytest.approx(8 / 24)  # 4 of 24 orders have one swap or none, both sides
    assert found["rows"] == 4
    assert rank_agreement(rows[:2]) is None


def test_latex_shows_markup_as_it_is():
    assert latex("a_b & 5 %\n{x}^2~\\") == (
        r"a\_b \& 5 \% \{x\}\textasciicircum{}2\textasciitilde{}\textbackslash{}"
    )
    assert latex("1.2×10⁻³ −4") == r"1.2$\times$10$^{-3}$ $-$4"
