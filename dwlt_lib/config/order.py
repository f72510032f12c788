"""The order in which a study is made: every figure coarsely first (one seed.

Dense, deepest, middle...), then finer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from dwlt_lib.config.specs import Spec, TransferSpec, with_upstream

Rank = tuple[int, int]
LAST: Rank = (
    2**31,
    2**31,
)  # what a figure does not show by itself: made when something builds on it, or at the end


def bisection(values: Iterable[int]) -> dict[int, int]:
    """{value: its rank from 0}.

    The least, the greatest, the middle, the middles of both halves, and so on.
    """
    found, row = {}, sorted(values)
    spans = [(0, len(row) - 1)] if row else []
    for low, high in spans:  # breadth first: halves are appended while it runs
        for at in (low, high, (low + high) // 2):
            found.setdefault(row[at], len(found))
        middle = (low + high) // 2
        spans += [span for span in ((low, middle), (middle, high)) if span[1] - span[0] > 1]
    return found


def coarse_to_fine_rank(plan: Mapping[str, Spec]) -> Callable[[Spec], Rank]:
    """A function from a record to its rank: figures are made coarsely first.

    Transfers rank by seed, then by `bisection` of the rounds that the plan transfers; landscapes
    and attacks as their transfer; all else LAST.

    Args:
        plan: the records of a study by id.

    Returns:
        A function that maps a record's description to a rank; the least is made first.
    """
    tickets = [spec for spec in plan.values() if isinstance(spec, TransferSpec)]
    seeds = {seed: i for i, seed in enumerate(sorted({spec.seed for spec in tickets}))}
    rounds = bisection({_rounds(spec) for spec in tickets})

    def rank(spec: Spec) -> Rank:
        of = getattr(spec, "transfer", spec)
        return (seeds[of.seed], rounds[_rounds(of)]) if isinstance(of, TransferSpec) else LAST

    return rank


def ordered(plan: Mapping[str, Spec]) -> list[Spec]:
    """The plan's records by their rank, each after those it builds on."""
    return list(with_upstream(sorted(plan.values(), key=coarse_to_fine_rank(plan))).values())


def _rounds(spec: TransferSpec) -> int:
    return spec.mask.rounds if spec.mask else 0
