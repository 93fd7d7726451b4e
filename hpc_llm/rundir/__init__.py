"""The run folder: layout, atomic writes, fingerprints, stage records, and fencing."""

from hpc_llm.rundir.atomic import (
    append_line,
    publish,
    read_json,
    read_jsonl,
    replaced_folder,
    sync_folder,
    system_errors,
    write_json,
    write_text,
)
from hpc_llm.rundir.bounded import bounded_json, check_yaml
from hpc_llm.rundir.confdir import conf_dir, conf_files
from hpc_llm.rundir.fence import check_fence, start_number
from hpc_llm.rundir.files import open_regular, temporary_beside
from hpc_llm.rundir.fingerprint import fingerprint, fingerprint_path, flat
from hpc_llm.rundir.folder import RunFolder
from hpc_llm.rundir.owner import refuse_foreign
from hpc_llm.rundir.starts import Start, join_start, note_start, read_starts, take_folder
from hpc_llm.rundir.sweep import Sweep, SweepFolder, Trial

__all__ = [
    "RunFolder",
    "Start",
    "Sweep",
    "SweepFolder",
    "Trial",
    "append_line",
    "bounded_json",
    "check_fence",
    "check_yaml",
    "conf_dir",
    "conf_files",
    "fingerprint",
    "fingerprint_path",
    "flat",
    "join_start",
    "note_start",
    "open_regular",
    "publish",
    "read_json",
    "read_jsonl",
    "read_starts",
    "refuse_foreign",
    "replaced_folder",
    "start_number",
    "sync_folder",
    "system_errors",
    "take_folder",
    "temporary_beside",
    "write_json",
    "write_text",
]
