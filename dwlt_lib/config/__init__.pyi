from . import datasets, parameters, specs, studies
from .datasets import CATALOGUE, DataSet
from .parameters import BadStudy
from .specs import Attack, Recipe, label, record_id, upstream
from .studies import Job, Study, jobs, plan

__all__ = [
    "Attack",
    "BadStudy",
    "CATALOGUE",
    "DataSet",
    "Job",
    "Recipe",
    "Study",
    "datasets",
    "jobs",
    "label",
    "parameters",
    "plan",
    "record_id",
    "specs",
    "studies",
    "upstream",
]
