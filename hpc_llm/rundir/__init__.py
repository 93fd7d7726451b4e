"""The run folder: where things lie, atomic writes, fingerprints and the record of stages."""

from hpc_llm.rundir.atomic import (
    append_line,
    publish,
    read_json,
    read_jsonl,
    replaced_folder,
    write_json,
    write_text,
)
from hpc_llm.rundir.confdir import conf_dir
from hpc_llm.rundir.fingerprint import fingerprint, fingerprint_path, flat
from hpc_llm.rundir.folder import RunFolder

__all__ = [
    "RunFolder",
    "append_line",
    "conf_dir",
    "fingerprint",
    "fingerprint_path",
    "flat",
    "publish",
    "read_json",
    "read_jsonl",
    "replaced_folder",
    "write_json",
    "write_text",
]
