from . import captions, figures, landscapes, study_overview, style

__all__ = ["captions", "figures", "landscapes", "study_overview", "style"]
