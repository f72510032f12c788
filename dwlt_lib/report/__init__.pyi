from . import chapters, page, study_tables
from .page import build

__all__ = ["build", "chapters", "page", "study_tables"]
