"""Run tasks on a policy: requests out, answers back, scored."""

from alignbench.evaluation.plan import TaskPlan, dry_run
from alignbench.evaluation.run import evaluate_policy, requests_of, select_documents
from alignbench.evaluation.samples import score_outputs
from alignbench.evaluation.types import Sample

__all__ = [
    "Sample",
    "TaskPlan",
    "dry_run",
    "evaluate_policy",
    "requests_of",
    "score_outputs",
    "select_documents",
]
