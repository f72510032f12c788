from . import app
from .app import browse

__all__ = ["app", "browse"]
