"""What `hpc-llm plan` prints: parameters, FLOPs, memory, hours and money before a run starts."""

from hpc_llm.planning.plan import Plan, make_plan
from hpc_llm.planning.text import PlanJob, jobs_text, join_plans, plan_answer, render_plan

__all__ = [
    "Plan",
    "PlanJob",
    "jobs_text",
    "join_plans",
    "make_plan",
    "plan_answer",
    "render_plan",
]
