"""Settings of the evaluation for tests of tasks, and a task of the test's own."""

import json

from hpc_llm.settings import EvaluationSettings


def evaluation(*tasks, **more):
    """Return settings with small numbers for `tasks`; keywords replace them."""
    given = {"window": 64, "stride": 32, "batch_tokens": 999, "test_bytes": 1, "tune_bytes": 1}
    return EvaluationSettings(**given | {"tasks": list(tasks), **more})


def own_task(tmp_path, monkeypatch):
    """Return a function that writes a task `mine` and its records, and returns the settings."""
    (tmp_path / "conf" / "task").mkdir(parents=True)
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def write(*records, task, **more):
        (tmp_path / "conf" / "task" / "mine.yaml").write_text(task)
        lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
        (tmp_path / "mine.jsonl").write_text("\n".join(lines) + "\n")
        return evaluation("mine", **more)

    return write


def of_real_items(shared, name, limit):
    """Return settings for `limit` real items of each task of `name`."""
    return evaluation(
        *name, window=512, stride=256, batch_tokens=4096, task_limit=limit,
        task_folder=str(shared / "data" / "eval"),
    )  # fmt: skip
