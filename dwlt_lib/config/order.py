"""The order in which a study is made: every figure coarsely first, then finer.

One training seed of the base seeds comes before the others, and of its levels the dense, the
deepest, the middle one, and so on. Other seeds of theta_p, masks and subsets, which tell how much
these matter, come last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from dwlt_lib.config.specs import Spec, TransferSpec, method_of, theta_seed, with_upstream

Rank = tuple[int, int, int]
# of what no figure shows by itself: made when something builds on it, or at the end
LAST: Rank = (2**31, 2**31, 2**31)


def bisection(values: Iterable[int]) -> dict[int, int]:
    """Ranks that visit an interval coarsely first: its ends, its middle, the middles of halves.

    For example `bisection(range(5))` is `{0: 0, 4: 1, 2: 2, 1: 3, 3: 4}`.

    Args:
        values: whole numbers, each once.

    Returns:
        The rank of each value, from 0.
    """
    ranks: dict[int, int] = {}
    row = sorted(values)
    spans = [(0, len(row) - 1)] if row else []
    for low, high in spans:  # breadth first: halves are appended while it runs
        middle = (low + high) // 2
        for i in (low, high, middle):
            ranks.setdefault(row[i], len(ranks))
        spans += [span for span in ((low, middle), (middle, high)) if span[1] - span[0] > 1]
    return ranks


def coarse_to_fine_rank(plan: Mapping[str, Spec]) -> Callable[[Spec], Rank]:
    """A function that ranks records: base seeds first, then by training seed, then by rounds.

    Base seeds are the least seeds of theta_p, mask and subset that a curve has.

    Args:
        plan: the records of a study by id.

    Returns:
        A function of a record's description; the least rank is made first.
    """
    tickets = [spec for spec in plan.values() if isinstance(spec, TransferSpec)]
    least: dict[tuple, int] = {}
    for spec in tickets:
        for curve, seed in _seeds(spec).items():
            least[curve] = min(seed, least.get(curve, seed))
    seeds = {seed: i for i, seed in enumerate(sorted({spec.seed for spec in tickets}))}
    rounds = bisection({_rounds(spec) for spec in tickets})

    def rank(spec: Spec) -> Rank:
        ticket = getattr(spec, "transfer", spec)
        if not isinstance(ticket, TransferSpec):
            return LAST
        others = sum(seed > least[curve] for curve, seed in _seeds(ticket).items())
        return others, seeds[ticket.seed], rounds[_rounds(ticket)]

    return rank


def ordered(plan: Mapping[str, Spec]) -> list[Spec]:
    """A plan's records in the order in which they are made.

    Args:
        plan: the records of a study by id.

    Returns:
        Their descriptions by `coarse_to_fine_rank`, each after those it builds on.
    """
    return list(with_upstream(sorted(plan.values(), key=coarse_to_fine_rank(plan))).values())


def _seeds(spec: TransferSpec) -> dict[tuple, int]:
    """A ticket's seeds of theta_p and subset, by its task, and that of its mask, by its curve."""
    task = (spec.theta.pretraining, spec.data.name, spec.fraction)
    seeds: dict[tuple, int] = {
        (*task, "theta"): theta_seed(spec),
        (*task, "subset"): spec.subset_seed,
    }
    if spec.mask:
        seeds[*task, method_of(spec), "mask"] = spec.mask.seed
    return seeds


def _rounds(spec: TransferSpec) -> int:
    return spec.mask.rounds if spec.mask else 0
