from . import datasets, network_names, parameter_file, planning, recipes, specs, studies
from .datasets import CATALOGUE, DataSet
from .parameter_file import BadStudy
from .planning import Job, jobs, plan
from .recipes import PGD, TrainingConfig
from .specs import label, record_id, upstream
from .studies import Study

__all__ = [
    "BadStudy",
    "CATALOGUE",
    "DataSet",
    "Job",
    "PGD",
    "Study",
    "TrainingConfig",
    "datasets",
    "network_names",
    "jobs",
    "label",
    "parameter_file",
    "plan",
    "planning",
    "recipes",
    "record_id",
    "specs",
    "studies",
    "upstream",
]
