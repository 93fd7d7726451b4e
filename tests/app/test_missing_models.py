"""A model that is neither here nor on the hub is refused in seconds, before the first stage."""

import json
import math
import os
import subprocess
import sys
import time

import pytest
import torch
from errors import user_error

from hpc_llm.errors import Diverged
from hpc_llm.rundir import write_json
from hpc_llm.stages.evaluate import require_finite
from hpc_llm.surgery.folders import check_model_folder
from hpc_llm.surgery.hub import names_hub_id


def adapt(folder, path, **environment):
    """Run `adapt` in `folder` with a model of this path; return the line that it prints."""
    (folder / "ru.jsonl").write_text(json.dumps({"text": "Жил-был кот."}) + "\n")
    words = [f"model.path={path}", "corpus.target=ru.jsonl", "tracking=off"]
    done = subprocess.run(
        [sys.executable, "-m", "hpc_llm.app", "adapt", *words], cwd=folder, check=False,
        capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "HF_HOME": str(folder / "hf"), **environment},
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr
    assert not (folder / "runs").exists()
    return line


@pytest.mark.parametrize(
    "environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}]
)
def test_a_hub_id_that_cannot_be_had(tmp_path, environment):
    start = time.monotonic()
    assert adapt(tmp_path, "owner/name", **environment).startswith("hpc-llm: model.path=owner/name")
    assert time.monotonic() - start < 30


def test_a_path_that_looks_local_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert names_hub_id("owner/name")
    for path in ("models/x", "./x", "/x/y", "~/x", "x", "x/", "runs/a/model"):
        assert not names_hub_id(path)
        with user_error("model.path", value=path):
            check_model_folder(path)


class Loss:
    def __init__(self, value):
        self.value = value


def test_a_loss_that_is_not_finite_names_the_model_and_the_weight():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    require_finite(model, "base", {"target": Loss(1.0)}, "models/x")
    model[1].bias.data[0] = math.nan
    for value in (math.nan, math.inf):
        with user_error("model.path", "1.bias", "source", value="models/x"):
            require_finite(model, "base", {"target": Loss(1.0), "source": Loss(value)}, "models/x")
    with pytest.raises(Diverged, match=r"evaluate/lora.*1\.bias"):
        require_finite(model, "lora", {"target": Loss(math.nan)}, "models/x")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_result_file_holds_nan(tmp_path, value):
    path = tmp_path / "result.json"
    with user_error(str(path)):
        write_json(path, {"a": [value]})
    assert not list(tmp_path.iterdir())
