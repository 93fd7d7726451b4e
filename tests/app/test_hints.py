"""What a run or a plan says about the next step."""

from errors import user_error

from hpc_llm import config
from hpc_llm.app.main import main
from hpc_llm.pipeline import pipeline
from hpc_llm.pipeline.todo import refuse_missing

METHOD = """
from hpc_llm.methods import Description, Trains
from hpc_llm.settings.stage import StageSettings

METHOD = Description(
    settings=StageSettings, trains=lambda stage: Trains(embedding=True), merges="never"
)
"""


def test_a_report_without_a_correction_names_the_verbs_that_are_missing(default_config):
    stages = {stage.name: stage for stage in pipeline(default_config)}
    undone = [stages["correct"], stages["evaluate/corrected"]]
    with user_error("report", "hpc-llm correct, then hpc-llm evaluate"):
        refuse_missing([stages["report"]], undone)
    with user_error("report", "hpc-llm correct,"):
        refuse_missing([stages["report"]], undone[:1])
    with user_error("report", "hpc-llm adapt"):
        refuse_missing([stages["report"]], list(stages.values()))
    refuse_missing(undone, undone)


def test_a_plan_says_where_a_run_ends_that_never_merges(capsys, tmp_path, monkeypatch):
    for folder in ("methods", "conf/method"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "methods/apart.py").write_text(f'"""Never merges."""\n{METHOD}')
    yaml = config.as_yaml(config.compose(["experiment=example"]).stages.embeddings)
    text = yaml.replace("method: embeddings", "method: apart")
    (tmp_path / "conf/method/apart.yaml").write_text(f"# Never merges.\n{text}")
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path))
    words = ["plan", "model=llama-3.1-8b", "cluster=h100_4x8"]
    assert main([*words, "+method@stages.apart=apart"]) == 0
    assert "evaluate/apart" in capsys.readouterr().out
    assert main(words) == 0
    assert "never merges" not in capsys.readouterr().out
