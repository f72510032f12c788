from . import datasets, parameters, recipes, specs, studies
from .datasets import CATALOGUE, DataSet
from .parameters import BadStudy
from .recipes import PGD, TrainingConfig
from .specs import label, record_id, upstream
from .studies import Job, Study, jobs, plan

__all__ = [
    "BadStudy",
    "CATALOGUE",
    "DataSet",
    "Job",
    "PGD",
    "Study",
    "TrainingConfig",
    "datasets",
    "jobs",
    "label",
    "parameters",
    "plan",
    "recipes",
    "record_id",
    "specs",
    "studies",
    "upstream",
]
