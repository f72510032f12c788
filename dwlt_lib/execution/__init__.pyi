from . import make, networks, progress, runner, study_files
from .study_files import read_study

__all__ = ["make", "networks", "progress", "read_study", "runner", "study_files"]
