"""`hpc-llm plan`: what a run would take, before it spends anything."""

from hpc_llm.app.arguments import Arguments

__all__ = ["run_plan"]


def run_plan(arguments: Arguments) -> int:
    """Print parameters, FLOPs, PF-days, hours and money of each training stage."""
    from hpc_llm import config
    from hpc_llm.accounting import plan_answer

    composed = config.compose(arguments.overrides, example=True)
    if arguments.show_config:
        print(config.as_yaml(composed), end="")
        return 0
    cfg = config.typed(composed)
    print(plan_answer(cfg), end="")
    return 0
