"""A run folder with invented results, shaped like those that the stages write."""

import math
import random
from typing import Any

from hpc_llm.rundir import RunFolder, append_line, write_json, write_text
from hpc_llm.tracking import EventLog

BPB = {
    "target": dict(
        base=2.9412, transplant=3.3871, embeddings=2.2113, lora=1.8842, corrected=1.8901
    ),
    "source": dict(
        base=1.6021, transplant=1.9127, embeddings=1.7410, lora=1.8422, corrected=1.7133
    ),
}
"""Bits per byte of each language after each point."""
POINTS = tuple(BPB["target"])


def measure(value: float, half: float, *, n: int = 130, **other: str) -> dict[str, Any]:
    named = {"unit": "bits per byte", "better": "lower", **other}
    return {"value": value, "low": value - half, "high": value + half, "n": n, **named}


MEASURES: dict[str, dict[str, dict[str, Any]]] = {
    **{
        f"bpb/{language}": {point: measure(value, 0.125) for point, value in column.items()}
        for language, column in BPB.items()
    },
    "forgetting/source": {
        point: measure(BPB["source"][point] - BPB["source"]["base"], 0.03) for point in POINTS[1:]
    },
}

SUMMARY: dict[str, Any] = {
    "run": "demo-ru",
    "recipe": "embeddings_then_lora",
    "measures": MEASURES,
    **{f"{language}_bpb": column for language, column in BPB.items()},
    "phi": {"value": 0.67, "low": 0.55, "high": 0.8},
    "tokens_per_word": {"old": 4.81, "new": 1.93},
    "token_ratio": 0.401,
    "flops": 3.71e14,
    "pf_days": 4.29e-6,
    "gpu_hours": None,
    "wall_seconds": 431.2,
    "stage_seconds": {
        "corpus": 1.2,
        "train/embeddings": 100.0,
        "evaluate/base": 40.0,
        "train/lora": 260.0,
        "evaluate/lora": 30.0,
        "report": None,
    },
    "money": {"amount": None, "currency": "USD"},
    "model": "runs/demo-ru/model",
}

CONFIG = """run: demo-ru
model:
  name: null
  path: /home/someone/models/tiny-en
corpus:
  target: ['sample:ru']
  source: ['sample:en']
"""


def phi_curve() -> list[dict[str, Any]]:
    curve = []
    for phi in (0.0, 0.25, 0.33, 0.5, 0.6, 0.64, 0.67, 0.71, 0.75, 0.9, 1.0, 1.25):
        target = 1.88 + 0.34 * (phi - 0.85) ** 2
        source = 1.66 + 0.12 * phi**2
        scored = phi in (0.0, 0.64, 0.67, 0.71, 1.0, 1.25)
        curve.append(
            {
                "phi": phi,
                "target_bpb": target,
                "target_low": target - 0.02,
                "target_high": target + 0.021,
                "source_bpb": source if scored else None,
                "source_low": source - 0.03 if scored else None,
                "source_high": source + 0.03 if scored else None,
                "objective": target + 0.5 * max(0.0, source - 1.66),
                "from": "golden" if phi in (0.64, 0.71) else "grid",
            }
        )
    return curve


def train_result(steps: int, flops: float, trained: int, loss: float) -> dict[str, Any]:
    return {
        "steps": steps,
        "tokens": steps * 4096,
        "bytes": steps * 22000,
        "flops": flops,
        "seconds": steps * 0.5,
        "trainable_parameters": trained,
        "loss": loss,
        "epochs": 1.7,
    }


RESULTS: dict[str, tuple[float, dict[str, Any]]] = {
    "corpus": (
        3.1,
        {
            side: {"documents": 5210, "characters": 6_911_120, "bytes": 12_310_422, "train": 5000}
            | {"duplicates": 31, "dropped": 12, "tune": 80, "test": 130}
            for side in ("target", "source")
        },
    ),
    "tokenizer": (
        9.4,
        {
            "vocab_size": 8192,
            "old_vocab_size": 4096,
            "old": {"tokens_per_word": 4.81, "characters_per_token": 1.4, "bytes_per_token": 2.5},
            "new": {"tokens_per_word": 1.93, "characters_per_token": 3.6, "bytes_per_token": 6.3},
            "token_ratio": 0.401,
        },
    ),
    "evaluate/base": (
        12.0,
        {"measures": {name: column["base"] for name, column in MEASURES.items() if "bpb" in name}},
    ),
    "transplant": (
        1.2,
        {
            "rows": 8192,
            "copied": 1120,
            "special": 4,
            "new": 7068,
            "unspelled": 2,
            "tied": False,
            "input": {
                "initialisation": "focus",
                "sources": {"copied": 1120, "special": 4, "focus": 7000, "random": 68},
                "norms": {"old": [0.91, 1.02, 1.3], "copied": [], "new": [0.5, 0.61, 0.7]},
                "anchors": 921,
                "r2": 0.31,
                "median_support": 19.0,
                "donor": "0123456789abcdef",
            },
            "output": {"initialisation": "mean", "sources": {"copied": 1120, "mean": 7068}},
        },
    ),
    "train/embeddings": (141.0, train_result(240, 1.21e14, 4_194_304, 3.912)),
    "train/lora": (233.0, train_result(450, 2.5e14, 5_210_112, 3.214)),
    "correct": (
        41.0,
        {
            "samples": [
                {
                    "prompt": "Москва — ",
                    "text": "город, в котором & <живут> люди.",
                    "stage": "base",
                },
                {"prompt": "Москва — ", "text": "столица России.", "stage": "corrected"},
            ]
        },
    ),
}


def write_events(folder: RunFolder) -> None:
    noise = random.Random(0)
    folder.path.mkdir(parents=True, exist_ok=True)
    log = EventLog(folder.events)
    for stage, steps, high, low in (("embeddings", 240, 8.6, 3.9), ("lora", 450, 4.1, 3.2)):
        for step in range(10, steps + 1, 10):
            loss = low + (high - low) * math.exp(-4 * step / steps) + noise.gauss(0, 0.04)
            axes = {"step": step, "tokens": 4096 * step}
            log.append("train", stage=stage, axes=axes, metrics={"train/loss": loss})


def write_record(
    folder: RunFolder, stage: str, result: dict[str, Any] | None, **other: Any
) -> None:
    record = {
        "stage": stage,
        "fingerprint": "0123456789abcdef",
        "seconds": 5.0,
        "started": "2026-01-01T11:00:00+00:00",
        "result": result,
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "commit": "1a2b3c4",
    }
    append_line(folder.record, {**record, **other})


def write_evaluations(folder: RunFolder) -> None:
    """Write evaluate/POINT.json as the stage does."""
    for point in POINTS:
        measures = {name: column[point] for name, column in MEASURES.items() if point in column}
        views = {
            language: {"bytes": 1000, "documents": 130}
            | {key: measures[f"bpb/{language}"][key] for key in ("value", "low", "high")}
            for language in BPB
        }
        write_json(folder.path / f"evaluate/{point}.json", {"measures": measures, **views})


def write_run(folder: RunFolder) -> RunFolder:
    write_events(folder)
    write_json(folder.summary, SUMMARY)
    write_text(folder.config, CONFIG)
    for number, (stage, (seconds, result)) in enumerate(RESULTS.items()):
        started = f"2026-01-01T10:{number:02d}:00+00:00"
        write_record(folder, stage, result, seconds=seconds, started=started)
    correction = {"phi": SUMMARY["phi"], "objective": "J = BPB(target)", "curve": phi_curve()}
    write_json(folder.path / "correct" / "phi.json", correction)
    return folder
