from . import chapters, evidence, page, study_tables
from .evidence import Findings, findings, judge_claims
from .page import build

__all__ = [
    "Findings",
    "build",
    "chapters",
    "evidence",
    "findings",
    "judge_claims",
    "page",
    "study_tables",
]
