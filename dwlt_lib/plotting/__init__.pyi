from . import figures, landscapes, robustness, study_overview, style, verdicts

__all__ = ["figures", "landscapes", "robustness", "study_overview", "style", "verdicts"]
