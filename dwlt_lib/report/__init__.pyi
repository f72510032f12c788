from . import build

__all__ = ["build"]
