"""Passwords, keys and tokens are in no file of a run, no job script and no printed text."""

import subprocess
from pathlib import Path

import pytest
from errors import user_error
from tiny import adapt

from hpc_llm.app.main import main
from hpc_llm.config import compose, load, typed
from hpc_llm.distributed import visible
from hpc_llm.settings.secrets import refuse_secrets

SECRET = "Zx9SecretQq7"
SHORT = [f"stages.{name}.steps=2" for name in ("pretrain", "embeddings", "lora")]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets where users have them: variables, ~/.netrc, a proxy, the remote of a repository."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    netrc = home / ".netrc"
    netrc.write_text(f"machine api.wandb.ai login user password {SECRET}\n")
    netrc.chmod(0o600)
    (here / ".env").write_text(f"WANDB_API_KEY={SECRET}\n")
    for words in (["init", "-q"], ["remote", "add", "origin", f"https://u:{SECRET}@host/x.git"]):
        subprocess.run(["git", *words], cwd=here, check=True)
    monkeypatch.chdir(here)
    proxy = f"http://user:{SECRET}@127.0.0.1:9"
    variables = {"HOME": str(home), "WANDB_API_KEY": SECRET * 4, "HF_TOKEN": f"hf_{SECRET}"}
    variables |= dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), proxy)
    variables |= {"AWS_SECRET_ACCESS_KEY": SECRET, "SBATCH_EXPORT": f"ALL,A_TOKEN={SECRET}"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_run_keeps_no_secret(planted, tmp_path: Path, capfd) -> None:
    done = adapt(tmp_path / "runs", *SHORT, "tracking=wandb")
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    kinds = {path.suffix for path in files}
    assert {".wandb", ".html", ".yaml", ".jsonl", ".md"} <= kinds
    assert SECRET not in done.stdout + done.stderr
    assert main(["env"]) == 0
    assert main(["plan", "experiment=example", "launch=slurm", f"runs_dir={tmp_path}/new"]) == 0
    assert SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("+cluster.environment.WANDB_API_KEY", "cluster.environment.WANDB_API_KEY"),
        ("+cluster.environment.HF_TOKEN", "cluster.environment.HF_TOKEN"),
        ("+cluster.environment.AWS_SECRET_ACCESS_KEY", "cluster.environment.AWS_SECRET_ACCESS_KEY"),
        (
            "+cluster.environment.https_proxy=http://u:{}@proxy:3128",
            "cluster.environment.https_proxy",
        ),
        ("launch.options.export='ALL,HF_TOKEN={}'", "launch.options.export"),
        ("launch.parts.train.export='WANDB_API_KEY={}'", "launch.parts.train.export"),
        ("corpus.target=['https://u:{}@host/a.jsonl']", "corpus.target"),
        ("model.path='https://:{}@host/a'", "model.path"),
        ("tracking.project=hf_abcdefgh{}", "tracking.project"),
        ("hardware.source='see http://u:{}@host'", "hardware.source"),
    ],
)
def test_a_secret_in_a_setting_is_refused_and_not_shown(
    override: str, key: str, tmp_path: Path, capfd
) -> None:
    text = override if "{}" in override else f"{override}={{}}"
    words = ["experiment=example", "launch=slurm", text.format(SECRET)]
    with user_error(key, value=None) as refused:
        typed(compose(words))
    assert SECRET not in str(refused.value)
    assert main(["adapt", *words, f"runs_dir={tmp_path}/runs"]) == 2
    assert SECRET not in "".join(capfd.readouterr())
    assert not (tmp_path / "runs").exists()


def test_an_old_configuration_with_a_secret_is_refused(default_config, tmp_path: Path) -> None:
    from hpc_llm.config import write

    default_config.cluster.environment["A_PASSWORD"] = SECRET
    try:
        write(default_config, tmp_path / "config.yaml")
    finally:
        del default_config.cluster.environment["A_PASSWORD"]
    with user_error("cluster.environment.A_PASSWORD"):
        load(tmp_path / "config.yaml")


def test_what_only_looks_like_one_is_accepted() -> None:
    refuse_secrets(
        {
            "cluster.environment.TOKENIZERS_PARALLELISM": "false",
            "cluster.environment.NCCL_IB_PKEY": "1",
            "cluster.environment.HF_TOKEN": "",
            "train.batch_tokens": 4096,
            "model.revision": "a" * 40,
            "corpus.target": ["s3://bucket/key=1/a.jsonl", "a@b:c", "http://host:80/a@b"],
            "launch.options.export": "ALL,OMP_NUM_THREADS=1",
        }
    )


def test_the_password_of_a_proxy_is_hidden_in_errors() -> None:
    text = f"cannot connect to http://user:{SECRET}@proxy:3128/ and https://:{SECRET}@b (x:y@z)"
    assert (
        visible(text) == "cannot connect to http://user:***@proxy:3128/ and https://:***@b (x:y@z)"
    )
