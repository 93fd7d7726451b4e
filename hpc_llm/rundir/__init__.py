"""The run folder: layout, atomic writes, fingerprints, stage records, and fencing."""

from hpc_llm.rundir.atomic import (
    append_line,
    damaged_lines,
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
from hpc_llm.rundir.inventory import Damage, Files, content_of, find_damage, take_inventory
from hpc_llm.rundir.owner import refuse_foreign
from hpc_llm.rundir.readable import readable
from hpc_llm.rundir.starts import Start, join_start, note_start, read_starts, take_folder
from hpc_llm.rundir.sweep import Sweep, SweepFolder, Trial

__all__ = [
    "Damage",
    "Files",
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
    "content_of",
    "damaged_lines",
    "find_damage",
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
    "readable",
    "refuse_foreign",
    "replaced_folder",
    "start_number",
    "sync_folder",
    "system_errors",
    "take_folder",
    "take_inventory",
    "temporary_beside",
    "write_json",
    "write_text",
]
