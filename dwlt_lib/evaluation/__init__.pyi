from . import accuracy, loss_directions
from .accuracy import robust_accuracy, standard_accuracy

__all__ = ["accuracy", "loss_directions", "robust_accuracy", "standard_accuracy"]
