"""A person's whole way through a page with 78 questions, in headless Chromium by WebDriver.

Needs `chromedriver` (Debian: apt-get install chromium-driver). Without it the test is skipped;
under HPC_LLM_REQUIRE_BROWSER=1, as in CI, it fails.
"""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from typing import Any

import pytest

from hpc_llm.evaluation.side_by_side import Design, Study, assign, read_votes
from hpc_llm.report.side_by_side import WORDS, annotator_page

DRIVER = shutil.which("chromedriver")
REQUIRED = os.environ.get("HPC_LLM_REQUIRE_BROWSER") == "1"
pytestmark = pytest.mark.skipif(not (DRIVER or REQUIRED), reason="needs chromedriver")

QUESTIONS = [f"q{number}" for number in range(78)]
CHOICES = {"1": "left", "2": "tie", "3": "right", "4": "both_bad"}
LEFT_ARROW = "\ue012"


@pytest.fixture(scope="module")
def address():
    """The address of a running chromedriver, which takes a free port."""
    with subprocess.Popen(
        [DRIVER or "chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if found := re.search(r"successfully on port (\d+)", line):
                yield f"http://127.0.0.1:{found[1]}"
                break
        process.terminate()


class Browser:
    """A window of Chromium that shows a page; its profile and downloads lie in `folder`."""

    def __init__(self, address, folder, page):
        self.base = f"{address}/session"
        arguments = ["headless=new", "no-sandbox", "disable-gpu", f"user-data-dir={folder}/profile"]
        options = {
            "args": [f"--{one}" for one in arguments],
            "prefs": {"download.default_directory": str(folder)},
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        wanted["goog:loggingPrefs"] = {"browser": "ALL"}
        made = self.post("", capabilities={"alwaysMatch": wanted})
        self.base += f"/{made['sessionId']}"
        self.post("/url", url=page.as_uri())

    def post(self, path, method="POST", **body) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def run(self, script):
        return self.post("/execute/sync", script=script, args=[])

    def type(self, keys):
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.post("/actions", actions=[{"type": "key", "id": "keys", "actions": steps}])

    def find(self, selector):
        (element,) = self.post("/element", using="css selector", value=selector).values()
        return f"/element/{element}"

    def click(self, selector):
        self.post(f"{self.find(selector)}/click")

    def text(self, selector):
        return self.run(f"return document.querySelector('{selector}').textContent")

    def close(self):
        self.post("", method="DELETE")


def waited_for(path):
    for _ in range(100):
        if path.is_file():
            return path
        time.sleep(0.1)
    raise AssertionError(f"no {path}")


def test_a_person_answers_78_questions(address, tmp_path):
    cards = assign(QUESTIONS, ["zebra", "yak"], Design(annotators=2, repeats=4))
    study = Study(made_from="", models={}, lengths={}, answers="", cards=cards)
    shown = [
        {"id": c.id, "question": c.question, "left": f"<b>{c.left}</b>", "right": "line\n&amp;"}
        for c in cards["01"]
    ]
    page = tmp_path / "01.html"
    page.write_text(annotator_page(study.id, "01", shown, "ru"), encoding="utf-8")
    keys = [str(1 + number % 4) for number in range(82)]

    browser = Browser(address, tmp_path, page)
    assert browser.text("#place") == "1 / 82"
    assert browser.text("#left") == shown[0]["left"]  # markup is text
    browser.type(keys[:40])
    assert browser.text("#question") == shown[40]["question"]
    browser.post(f"{browser.find('#remark')}/value", text="12 хорошо")  # digits here do not vote
    browser.close()

    browser = Browser(address, tmp_path, page)  # opened again: continues
    assert browser.text("#place") == "41 / 82"
    assert browser.run("return document.getElementById('remark').value") == "12 хорошо"
    browser.type([LEFT_ARROW])
    browser.click("[data-choice=tie]")  # another choice than before
    keys[39] = "2"
    browser.type(keys[40:])
    assert browser.text("#message") == WORDS["ru"]["done"]
    browser.click("#export")
    path = waited_for(tmp_path / "answers-01.json")
    assert browser.post("/se/log", type="browser") == []  # no error, nothing blocked
    browser.close()

    votes = read_votes(study, [path])
    assert [vote.choice for vote in votes] == [CHOICES[key] for key in keys]
    assert [vote.remark for vote in votes if vote.remark] == ["12 хорошо"]
    assert votes[40].remark
