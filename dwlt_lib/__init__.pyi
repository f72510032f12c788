from . import (
    analysis,
    attacks,
    benchmarks,
    browser,
    config,
    data,
    evaluation,
    execution,
    models,
    plotting,
    pruning,
    records,
    report,
    tour,
    training,
)

__all__ = [
    "analysis",
    "attacks",
    "benchmarks",
    "browser",
    "config",
    "data",
    "evaluation",
    "execution",
    "models",
    "plotting",
    "pruning",
    "records",
    "report",
    "tour",
    "training",
]

__version__: str
