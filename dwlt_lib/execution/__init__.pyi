from . import make, progress, runner, study_files
from .study_files import read_study

__all__ = ["make", "progress", "read_study", "runner", "study_files"]
