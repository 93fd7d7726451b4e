"""Jobs with launch.snapshot=true run the program as it was when they were submitted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_llm.config import compose, typed
from hpc_llm.launch import copy_code, job_script

ASK = "import json, hpc_llm; from hpc_llm.pipeline import commit;"
ASK += "from hpc_llm.rundir import conf_dir;"
ASK += "print(json.dumps([hpc_llm.__file__, str(conf_dir()), commit()]))"


def ask(code: Path) -> list[str]:
    environment = os.environ | {"PYTHONPATH": f"{code}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_copy_is_what_python_imports_with_its_own_configuration(tmp_path: Path) -> None:
    code = tmp_path / "runs" / "code"
    code.mkdir(parents=True)
    (code / "left-over").touch()
    copy_code(code.parent, "abc123")
    assert sorted(path.name for path in code.iterdir()) == ["COMMIT", "hpc_llm"]
    assert ask(code) == [
        str(code / "hpc_llm" / "__init__.py"),
        str(code / "hpc_llm" / "conf"),
        "abc123",
    ]
    copy_code(code.parent, None)
    assert ask(code)[2] is None


@pytest.mark.parametrize("tasks", [(), (3, 4)])
def test_each_run_folder_has_its_own_which_the_job_script_puts_first(tasks: list[int]) -> None:
    # trials that are added to a sweep later must not change the program of those that wait
    cfg = typed(compose(["experiment=example", "launch=slurm", "launch.snapshot=true"]))
    script = job_script(cfg, "adapt", cfg.folder / "config.yaml", tasks=tasks)
    folder = f"folder={cfg.folder.absolute()}" + ("/$SLURM_ARRAY_TASK_ID" if tasks else "")
    first = "export PYTHONPATH=$folder/code${PYTHONPATH:+:$PYTHONPATH}"
    assert script.index(f"\n{folder}\n") < script.index(first)
