from . import experiments, interactive

__all__ = ["experiments", "interactive"]
