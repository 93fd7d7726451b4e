"""Help texts, generated from the verbs and `conf/` without composing a configuration."""

from hpc_llm.app.verbs import VERBS
from hpc_llm.rundir import conf_dir, conf_files

__all__ = ["help_text"]


def help_text(verb: str | None) -> str:
    """Return the help of a verb, or of the whole command."""
    if verb is None:
        width = max(map(len, VERBS))
        verbs = "\n".join(f"  {name:<{width}}  {value.summary}" for name, value in VERBS.items())
        return (
            "hpc-llm VERB [KEY=VALUE ...]\n\n"
            "Adapts a pretrained LLM to a new language on Slurm clusters: new tokenizer,\n"
            "vocabulary transplant, embedding and LoRA training, with exact cost accounting.\n\n"
            f"{verbs}\n\n"
            "Without arguments `hpc-llm adapt` runs the embedded example on this machine.\n"
            "  --help      this text, or that of a verb\n"
            "  --cfg job   print the configuration that the overrides give\n"
            "  -m          sweep over every combination of comma-separated values\n"
            "  --stages    run only these stages: --stages tokenizer,evaluate/base\n"
            "  --version   print the version\n"
            "HPC_LLM_DEBUG=1 shows the traceback of an error."
        )
    known = VERBS[verb]
    text = f"hpc-llm {verb} {known.takes}".rstrip() + f"\n\n{known.summary}\n\n{known.details}"
    if not known.has_settings:
        return text
    groups = "\n".join(f"  {group:<12} {', '.join(options)}" for group, options in _groups())
    return (
        f"{text}\n\nGroups (GROUP=OPTION):\n{groups}\n\n"
        f"Training methods (+method@stages.NAME=METHOD): {', '.join(conf_files('method'))}\n\n"
        f"Benchmark tasks (evaluation.tasks=[TASK,...]): {', '.join(conf_files('task'))}\n\n"
        f"--stages A,B runs only these stages of the verb; -m sweeps over KEY=A,B.\n"
        f"`hpc-llm {verb} --cfg job` prints every setting (GROUP.KEY=VALUE)."
    )


def _groups() -> list[tuple[str, list[str]]]:
    used = (conf_dir() / "config.yaml").read_text(encoding="utf-8")
    folders = sorted(path for path in conf_dir().iterdir() if f"  - {path.name}: " in used)
    return [(folder.name, list(conf_files(folder.name))) for folder in folders]
