"""Archives of answers for a benchmark whose answers are hidden: MERA's submission.

The archive has one file a task, `{"data": {"test": [{"outputs": TEXT, "meta": {"id": ID}}]}}`: the
form that `scripts/log_to_submission.py` of github.com/MERA-Evaluation/MERA writes.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from hpc_llm.rundir import publish, read_jsonl, system_errors, temporary_beside

__all__ = ["ARCHIVE", "write_archive"]

ARCHIVE = "submission.zip"
DATE = (1980, 1, 1, 0, 0, 0)  # of every member, so that equal answers are equal bytes


def write_archive(folder: Path, names: Mapping[str, str]) -> Path:
    """Write the archive of a point's folder from its `TASK.jsonl`; return its path.

    `names` are the names in the archive by task.
    """
    path = folder / ARCHIVE
    temporary = temporary_beside(path)
    with system_errors(path), zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for task, name in names.items():
            lines = read_jsonl(folder / f"{task}.jsonl")
            answers = [
                {"outputs": line["output"], "meta": {"id": line["submission_id"]}} for line in lines
            ]
            content = json.dumps({"data": {"test": answers}}, ensure_ascii=False, indent=4)
            member = zipfile.ZipInfo(f"{name}.json", DATE)
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    publish(temporary, path)
    return path
