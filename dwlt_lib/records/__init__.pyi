from . import store
from .store import (
    checkout,
    exists,
    missing,
    outputs,
    read,
    study,
    study_names,
    table,
    verify,
    where,
)

__all__ = [
    "checkout",
    "exists",
    "missing",
    "outputs",
    "read",
    "store",
    "study",
    "study_names",
    "table",
    "verify",
    "where",
]
