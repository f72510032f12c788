from . import captions, figures, landscapes, robustness, study_overview, style

__all__ = ["captions", "figures", "landscapes", "robustness", "study_overview", "style"]
