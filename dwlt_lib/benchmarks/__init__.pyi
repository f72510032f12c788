from . import baselines, bench

__all__ = ["baselines", "bench"]
