from . import chapters, evidence, page, study_tables
from .evidence import judge_claims
from .page import build

__all__ = ["build", "chapters", "evidence", "judge_claims", "page", "study_tables"]
