from . import baselines, bench, inference

__all__ = ["baselines", "bench", "inference"]
