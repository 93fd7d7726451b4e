"""`hpc-llm plan`: parameters, FLOPs, memory, hours and money of a recipe before a run starts."""

from hpc_llm.planning.plan import Plan, make_plan
from hpc_llm.planning.text import (
    PlanAnswer,
    PlanJob,
    jobs_text,
    join_plans,
    plan_answer,
    render_plan,
)

__all__ = [
    "Plan",
    "PlanAnswer",
    "PlanJob",
    "jobs_text",
    "join_plans",
    "make_plan",
    "plan_answer",
    "render_plan",
]
