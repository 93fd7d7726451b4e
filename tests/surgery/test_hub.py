"""Hub ids are looked up before a run; a server of the standard library plays the hub."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import user_error
from safetensors.torch import save_file
from tiny import settings

from hpc_llm.settings import ModelSettings
from hpc_llm.surgery.folders import check_base
from hpc_llm.surgery.hub import cached_folder, check_hub_id

COMMIT = "a" * 40
LLAMA = {"model_type": "llama", "hidden_size": 8, "vocab_size": 9}
MODELS: dict[str, dict[str, Any]] = {
    "owner/llama": {"config.json": LLAMA, "model.safetensors": {}},
    "owner/t5": {"config.json": {"model_type": "t5"}, "model.safetensors": {}},
    "owner/pickle": {"config.json": LLAMA, "pytorch_model.bin": {}},
    "owner/data": {"train.jsonl": {}},
}


class Hub(BaseHTTPRequestHandler):
    """Knows the branch main of `MODELS`; owner/gated is gated."""

    def do_GET(self) -> None:
        """Answer the questions for a model and for a file."""
        parts = self.path.partition("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name == "owner/gated":
            return self.answer(403, {}, {"X-Error-Code": "GatedRepo"})
        if name not in MODELS:
            return self.answer(404, {}, {"X-Error-Code": "RepoNotFound"})
        if parts[0] != "api":  # OWNER/NAME/resolve/COMMIT/FILE
            return self.answer(200, MODELS[name][parts[4]], {"X-Repo-Commit": COMMIT})
        if parts[4:] and parts[5] not in ("main", COMMIT):
            return self.answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        if parts[4:5] == ["tree"]:
            files = [{"type": "file", "path": f, "size": 2, "oid": COMMIT} for f in MODELS[name]]
            return self.answer(200, files, {})
        files = [{"rfilename": file} for file in MODELS[name]]
        return self.answer(200, {"id": name, "sha": COMMIT, "siblings": files}, {})

    do_HEAD = do_GET  # noqa: N815

    def answer(self, code: int, content: object, headers: dict[str, str]) -> None:
        """Send JSON."""
        data = json.dumps(content).encode()
        self.send_response(code)
        own = {"Content-Length": str(len(data)), "ETag": f'"{sha1(data).hexdigest()}"'}
        for key, value in (headers | own).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and the hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.chdir(tmp_path)
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield tmp_path / "hub"
    server.shutdown()
    server.server_close()


def model(path: str, revision: str | None = None) -> ModelSettings:
    return replace(settings().model, path=path, revision=revision)


@pytest.mark.parametrize(
    ("path", "mention"),
    [
        ("owner/none", "OWNER/NAME"),
        ("owner/gated", "gated"),
        ("owner/pickle", "*.safetensors"),
        ("owner/data", "config.json"),
        ("owner/bad name", "owner/bad name"),
        ("owner/-x", "owner/-x"),
    ],
)
def test_what_the_hub_lacks_is_refused(path: str, mention: str, cache: Path) -> None:
    with user_error("model.path", mention, value=path):
        check_hub_id(model(path))


def test_a_revision_that_the_hub_lacks_is_refused(cache: Path) -> None:
    check_hub_id(model("owner/llama", "main"))
    with user_error("model.revision", "owner/llama", value="v9"):
        check_hub_id(model("owner/llama", "v9"))


def test_the_family_of_a_hub_id_is_checked_before_its_weights_are_loaded(cache: Path) -> None:
    for path in ("owner/llama", "owner/t5"):
        check_hub_id(model(path))
        folder = cached_folder(path, None)
        assert folder is not None
        assert [file.name for file in folder.iterdir()] == ["config.json"]
    assert check_base("owner/llama") == {}
    with user_error("model.path", "t5", value="owner/t5"):
        check_base("owner/t5")


def test_offline_the_weights_must_be_in_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_hub_id(model("owner/llama"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for path, mention in (("owner/llama", "weights"), ("owner/t5", "is not in the cache")):
        with user_error("model.path", mention, "HF_HUB_OFFLINE=1", value=path):
            check_hub_id(model(path))
    folder = cached_folder("owner/llama", None)
    assert folder is not None
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": torch.zeros(1)}, folder / "one.safetensors")
    with user_error("model.path", "weights", value="owner/llama"):
        check_hub_id(model("owner/llama"))
    save_file({"b": torch.zeros(1)}, folder / "two.safetensors")
    check_hub_id(model("owner/llama"))
