from . import costs, figures, make, networks, progress, runner, scheduling, study_files
from .study_files import read_study

__all__ = [
    "costs",
    "figures",
    "make",
    "networks",
    "progress",
    "read_study",
    "runner",
    "scheduling",
    "study_files",
]
