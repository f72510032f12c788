from . import accuracy
from .accuracy import robust_accuracy, standard_accuracy

__all__ = ["accuracy", "robust_accuracy", "standard_accuracy"]
