from . import captions, figures, landscapes, style

__all__ = ["captions", "figures", "landscapes", "style"]
