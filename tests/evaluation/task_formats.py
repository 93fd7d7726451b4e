"""One record of each task of the project in the form that its authors publish.

Russian SuperGLUE: the JSON Lines of russiansuperglue.com, whose fields the baselines of
github.com/RussianNLP/RussianSuperGLUE read (`tfidf_baseline/`). MMLU: github.com/hendrycks/test.
MERA: the fields that github.com/MERA-Evaluation/MERA reads (`benchmark_tasks/`,
`scripts/log_to_submission.py`).
XQuAD, BLiMP, RuBLiMP: the fields of their files in the data folder.
"""

import gzip
import json

NLI = {"premise": "Кран течёт. Мастер ушёл.", "hypothesis": "Мастер ушёл.", "idx": 1}
PASSAGE = "Осло - столица Норвегии. Там живёт Кнут.\n@highlight\nКнут любит Осло."

RECORDS = {
    "parus": {
        "premise": "Я устал.",
        "question": "cause",
        "choice1": "Да.",
        "choice2": "Нет.",
        "label": 1,
    },
    "russe": {"word": "мир", "sentence1": "Миру мир.", "sentence2": "Мир велик.", "label": True},
    "lidirus": {"sentence1": "Все спят.", "sentence2": "Он спит.", "label": "not_entailment"},
    "rcb": {**NLI, "verb": "сказать", "negation": "no_negation", "label": "neutral"},
    "terra": {**NLI, "label": "entailment"},
    "danetqa": {"question": "Вода мокрая?", "passage": "Вода мокрая.", "idx": 0, "label": True},
    "rwsd": {
        "text": "Кубок не влез в чемодан, потому что он большой.",
        "target": {
            "span1_index": 0,
            "span1_text": "Кубок",
            "span2_index": 7,
            "span2_text": "он большой",
        },
        "idx": 0,
        "label": False,
    },
    "muserc": {
        "idx": 0,
        "passage": {
            "text": "(1) Кот спал. (2) Пёс ел.",
            "questions": [
                {
                    "question": "Кто спал?",
                    "answers": [
                        {"idx": 0, "text": "Кот", "label": 1},
                        {"idx": 1, "text": "Пёс", "label": 0},
                    ],
                    "idx": 0,
                },
                {
                    "question": "Кто ел?",
                    "answers": [{"idx": 2, "text": "Пёс", "label": 1}],
                    "idx": 1,
                },
            ],
        },
    },
    "rucos": {
        "source": "Lenta",
        "idx": 0,
        "passage": {
            "text": PASSAGE,
            "entities": [
                {"start": 0, "end": 4},
                {"start": 35, "end": 39},
                {"start": 52, "end": 56},
            ],
        },
        "qas": [
            {
                "query": "@placeholder живёт в столице.",
                "answers": [{"start": 35, "end": 39, "text": "Кнут"}],
                "idx": 0,
            }
        ],
    },
    "ruworldtree": {"question": "Кто?", "choices": ["он", "она", "оно", "они"], "label": 3},
    "xquad_ru": {"context": "Кот спит.", "question": "Кто спит?", "answers": ["Кот", "кот"]},
    "rublimp": {"good": "Он спит.", "bad": "Он спят.", "phenomenon": "A", "paradigm": "b"},
    "blimp": {"good": "He sits.", "bad": "He sit.", "phenomenon": "A", "paradigm": "b"},
    "mmlu_en": {
        "question": "2 + 2?",
        "choices": ["1", "2", "3", "4"],
        "subject": "high_school",
        "label": 3,
    },
}
RECORDS["parus_orders"] = RECORDS["parus"]
_CHOICES = {
    "instruction": "Задание: {text}\nA {option_a}\nB {option_b}\nC {option_c}\nD {option_d}",
    "inputs": {"text": "Кто?", "option_a": "a", "option_b": "b", "option_c": "c", "option_d": "d"},
    "outputs": "C",
    "meta": {"id": 7},
}
_SUM = {"instruction": "Реши: {inputs}", "inputs": "2 + 2", "outputs": "4", "meta": {"id": 7}}
_NUMBERS = {**_CHOICES, "outputs": "2"}
RECORDS |= {
    **{
        f"mera_{name}": _CHOICES
        for name in ("ruworldtree", "ruopenbookqa", "mathlogicqa", "rummlu")
    },
    **{f"mera_{name}": _SUM for name in ("simplear", "rumodar", "rumultiar")},
    "mera_parus": _NUMBERS,
    "mera_rcb": _NUMBERS,
    "mera_rwsd": {**_CHOICES, "outputs": "Нет"},
}
RECORDS["mmlu_en_text"] = RECORDS["mmlu_en"]
RECORDS["mmlu_ru"] = RECORDS["mmlu_ru_text"] = RECORDS["mmlu_en"]
RECORDS["simplear"] = {"formula": "8920 + 2043", "answer": "10963"}

GOLD = {
    "parus": [1],
    "parus_orders": [1, 0],
    "russe": [1],
    "lidirus": [1],
    "rcb": [2],
    "terra": [0],
    "danetqa": [1],
    "rwsd": [0],
    "muserc": [1, 0, 1],
    "rucos": [1],
    "ruworldtree": [3],
    **{f"mera_{name}": [2] for name in ("ruworldtree", "ruopenbookqa", "mathlogicqa", "rummlu")},
    **{f"mera_{name}": [1] for name in ("parus", "rcb", "rwsd")},
    **{name: [3] for name in ("mmlu_en", "mmlu_en_text", "mmlu_ru", "mmlu_ru_text")},
}
"""Index of the correct choice of each question of the record; others have one question and 0."""


def write_records(name, task, folder):
    """Write the record of a task, and as many copies as it has examples, where `task` looks.

    Return the path of the file of questions.
    """
    path = _write(RECORDS[name], task.files[0], 1, folder)
    if task.shots_from:
        _write(RECORDS[name], task.shots_from[0], task.shots, folder)
    elif task.shots:
        _write(RECORDS[name], task.files[0], 1 + task.shots, folder)
    return path


def _write(record, pattern, copies, folder):
    path = folder / pattern.replace("*", "", 1).replace("*", ".gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    if ".csv" in pattern:
        row = [record["question"], *record["choices"], "ABCD"[record["label"]]]
        text = ",".join(row) + "\n"
        path = path.with_name(f"{record['subject']}_test.csv")
    else:
        text = json.dumps(record, ensure_ascii=False) + "\n"
    data = text.encode() * copies
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
