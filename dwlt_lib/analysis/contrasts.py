"""Contrasts of means over a study's records, with their errors.

The unit of replication is the seed: levels of one seed share its luck and count as one. Contrasts
between curves (theta_p or method) average each curve over its levels first, and their error is the
interaction of curve and seed; those within a curve have the interaction of level and seed as error
(a split plot; Cox and Reid 2000, section 6.4). Both are pooled over all curves of a task, since
three seeds tell little of one curve alone. Such an interval speaks for further training seeds of
these tickets. It speaks for theta_p drawn anew only where both curves have several theta_seeds,
which are then the unit.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from dwlt_lib.analysis import noninferiority
from dwlt_lib.analysis.noninferiority import leading
from dwlt_lib.analysis.paper_results import main_datasets
from dwlt_lib.analysis.statistics import CRITERIA, Difference, Outcomes, right_images
from dwlt_lib.analysis.tables import base_seeds, replicates, sparsest, sparsities
from dwlt_lib.config.specs import Pictures
from dwlt_lib.config.studies import Margins

Levels = tuple[float, float]
"""Sparsities from above the first up to the second, in [0, 1]."""

SPARSE: Levels = (0.0, 1.0)
DENSE: Levels = (-1.0, 0.0)
EXAMPLE: Levels = (0.70, 0.78)
"""73.79 %, the level that sections 5 and 6 take as their example."""

Curve = tuple[str, str]
"""(pretraining, method)."""

Data = Literal["all", "limited", "further"]
"""All of a main data set, a part of one, or all of a further data set. The main ones are the
paper's three; of a study without them, the one of most records."""

SEEDS = "further training seeds and test images, of these theta_p and masks"
THETAS = "theta_p, masks and training seeds drawn anew, and further test images"
THESE_IMAGES = "further training seeds of these theta_p and masks, on these test images"
NETWORKS = "further networks like these, with one draw of directions each"
MASKS = "the masks that are there, exactly"


@dataclass(frozen=True)
class Estimate:
    """The largest of one or more contrasts, with what is known of it."""

    where: str
    """The data, in words; empty for what is not about downstream data."""
    what: str
    """The contrast, in words."""
    terms: tuple[Difference, ...]
    """The contrasts, as fractions of 1; an se of NaN: not known, of 0: exact."""
    n: int
    """How many units of replication there are."""
    speaks_for: str
    """The population that the interval is about."""

    @property
    def effect(self) -> float:
        """The largest of the effects."""
        return max(term.difference for term in self.terms)

    @property
    def error(self) -> float:
        """The largest of the errors."""
        return float(np.max([term.se for term in self.terms]))

    def low(self, alpha: float) -> float:
        """The lower bound at a one-sided error of alpha, divided among the contrasts.

        Args:
            alpha: in (0, 0.5).

        Returns:
            The bound, NaN where the error is not known.
        """
        each = 1 - alpha / len(self.terms)
        return float(np.max([term.low(each) for term in self.terms]))

    def high(self, alpha: float) -> float:
        """The upper bound at a one-sided error of alpha: every contrast's own lies below it.

        Args:
            alpha: in (0, 0.5).

        Returns:
            The bound, NaN where the error is not known.
        """
        return float(np.max([term.high(1 - alpha) for term in self.terms]))


@dataclass(frozen=True)
class Order(Estimate):
    """How far the extreme double-win sparsity of one curve lies above another's.

    Both are certified as `noninferiority.certified` does, each bound at half the error, since an
    order is wrong where either is. The upper ones are the last levels that may match.
    """

    ladders: Sequence[Sequence[Estimate | None]]
    """Two: of the upper and of the lower curve, how much more than its margin each level is worse
    than dense; None: not known. It has no terms."""
    sparsity: np.ndarray
    """(levels + 1,) of dense, 0.0, and of the levels, in [0, 1]."""

    @property
    def effect(self) -> float:
        """The last levels up to which no estimate is beyond its margin, one less the other."""
        (high, _), (low, _) = (self._certified(ladder, 0.5) for ladder in self.ladders)
        return high - low

    @property
    def error(self) -> float:
        """Infinite: its bounds are not those of a mean."""
        return np.inf

    def low(self, alpha: float) -> float:
        """What the one certainly reaches less what the other may reach, at an error of alpha.

        Args:
            alpha: in (0, 0.5).

        Returns:
            The bound, in [-1, 1].
        """
        (at_least, _), (_, at_most) = (self._certified(own, alpha / 2) for own in self.ladders)
        return at_least - at_most

    def high(self, alpha: float) -> float:
        """What the one may reach less what the other certainly reaches, at an error of alpha.

        Args:
            alpha: in (0, 0.5).

        Returns:
            The bound, in [-1, 1].
        """
        (_, at_most), (at_least, _) = (self._certified(own, alpha / 2) for own in self.ladders)
        return at_most - at_least

    def _certified(self, ladder: Sequence[Estimate | None], alpha: float) -> tuple[float, float]:
        """The sparsities between which a curve's extreme lies, both included."""
        matching = [bool(level and level.high(alpha) < 0) for level in ladder]
        short = [bool(level and level.low(alpha) > 0) for level in ladder]
        first, last = leading(matching), len(ladder) - leading(short[::-1])
        return float(self.sparsity[first]), float(self.sparsity[last])


# ------------------------------------------------------------------------------------------
# accuracies


@dataclass(frozen=True)
class Task:
    """The accuracies by one criterion on one share of a data set."""

    dataset: str
    """Which it is."""
    fraction: float
    """How much of it, in (0, 1]."""
    data: Data
    """Which kind they are."""
    criterion: str
    """Of `CRITERIA`."""
    by_seed: dict[Curve, pd.DataFrame]
    """(rounds, seeds) accuracies of each curve with the base theta_p; the dense network, of rounds
    0, is in each."""
    by_theta: dict[Curve, pd.DataFrame]
    """The same, (rounds, theta_seeds): means over training seeds."""
    sparsity: dict[int, float]
    """Of each level, by rounds."""
    images: float
    """How many test images there are; NaN: not known."""
    right: Mapping[tuple, Mapping[str, np.ndarray]]
    """Which test images are right, of `statistics.right_images`, where that was stored."""

    @property
    def where(self) -> str:
        """The data in words."""
        return _where(self.dataset, self.fraction)

    def matrix(
        self, cells: dict[Curve, pd.DataFrame], curve: Curve, levels: Levels
    ) -> pd.DataFrame:
        """The accuracies of some of a curve's levels.

        Args:
            cells: `by_seed` or `by_theta`.
            curve: the curve; one that is not there has no levels.
            levels: which of them.

        Returns:
            (rounds, units), without units that lack one of these levels.
        """
        own = cells.get(curve, pd.DataFrame())
        sparsity = own.index.map(self.sparsity).to_numpy(float)
        own = own.loc[(sparsity > levels[0]) & (sparsity <= levels[1])]
        return own.dropna(how="all").dropna(axis="columns")

    def image_variance(
        self, high: tuple[Curve, pd.DataFrame], low: tuple[Curve, pd.DataFrame]
    ) -> float:
        """The variance of the difference of two means by the draw of test images.

        With bits it is the variance over images of the mean difference, less what the seeds add to
        that, which the seeds' error holds already; else p (1 - p) / N of both means, as if they
        were tested on different images.

        Args:
            high: a curve, and the (rounds, seeds) accuracies over which the mean is taken.
            low: the same of the mean that is subtracted, with the same seeds.

        Returns:
            The variance; 0 where the number of test images is not known.
        """
        try:
            a, b = (self._right(*side) for side in (high, low))
        except KeyError:
            means = [own.to_numpy().mean() for _, own in (high, low)]
            variance = sum(mean * (1 - mean) for mean in means) / self.images
            return 0.0 if np.isnan(variance) else variance
        n, images = (a - b).shape
        of_seeds = (a - b).var(axis=0, ddof=1).mean() / n if n > 1 else 0.0
        return max((a - b).mean(axis=0).var(ddof=1) - of_seeds, 0.0) / images

    def _right(self, curve: Curve, cells: pd.DataFrame) -> np.ndarray:
        """(seeds, images) the share of the levels at which an image is right."""
        regime, metric = CRITERIA[self.criterion]
        pretraining, method = curve

        def bits(rounds: int, seed: int) -> np.ndarray:
            name = method if rounds else "dense"
            run = (pretraining, name, self.dataset, self.fraction, regime, rounds, seed)
            return self.right[run][metric]

        return np.array([np.mean([bits(r, s) for r in cells.index], axis=0) for s in cells])


@dataclass(frozen=True)
class Evidence:
    """What a study's records say, as far as it has them."""

    transfers: pd.DataFrame
    """As `tables.replicates` takes them."""
    outcomes: Outcomes = field(default_factory=dict)
    """The correctness per image, of as many transfers as have it."""
    margins: Margins | None = None
    """How much worse than dense a ticket still matches; None: the default of a study."""
    attacks: pd.DataFrame | None = None
    """Transfer attacks (Table A2)."""
    pairs: pd.DataFrame | None = None
    """The similarity of IMP-ST's masks, of `mask_patterns.similarity_table`."""
    kernels: pd.DataFrame | None = None
    """The zero kernels of IMP-ST's masks, of `mask_patterns.zero_kernel_table`."""
    areas: pd.DataFrame | None = None
    """The basins, of `plotting.landscapes.basin_area`, with a column images: clean or attacked."""

    @cached_property
    def tasks(self) -> list[Task]:
        """Accuracies, of `tasks`."""
        return tasks(self.transfers, self.outcomes)

    @cached_property
    def levels(self) -> pd.DataFrame:
        """How they differ from dense, of `noninferiority.noninferiority`."""
        return noninferiority.noninferiority(self.transfers, self.outcomes, self.margins)


def tasks(table: pd.DataFrame, outcomes: Outcomes) -> list[Task]:
    """Everything that a table of transfers says of accuracies.

    Args:
        table: transfers, as `tables.replicates` takes them.
        outcomes: the correctness per image, of as many of them as have it.

    Returns:
        A task for each criterion and share of a data set.

    Raises:
        ValueError: one line, as `tables.replicates`.
    """
    rows = replicates(table)
    if rows.empty:
        return []
    drawn = []  # the same of each theta_seed, which is then the unit
    if "theta_seed" in table.columns and table["theta_seed"].nunique() > 1:
        drawn = [replicates(own).assign(seed=theta) for theta, own in table.groupby("theta_seed")]
    by_theta = pd.concat(drawn) if drawn else rows.iloc[:0]
    right = right_images(table, outcomes)
    main = main_datasets(rows)
    most = rows.groupby("dataset")["fraction"].max().to_dict()
    found = []
    for (dataset, fraction), own in rows.groupby(["dataset", "fraction"]):
        kind: Data = "all" if dataset in main else "further"
        if fraction != most[dataset]:
            if dataset not in main:
                continue
            kind = "limited"
        thetas = by_theta[(by_theta["dataset"] == dataset) & (by_theta["fraction"] == fraction)]
        for criterion, (regime, metric) in CRITERIA.items():
            if regime not in set(own["regime"]):
                continue
            found.append(
                Task(
                    dataset=str(dataset),
                    fraction=float(str(fraction)),
                    data=kind,
                    criterion=criterion,
                    by_seed=_curves(own[own["regime"] == regime], metric),
                    by_theta=_curves(thetas[thetas["regime"] == regime], metric),
                    sparsity=sparsities(own),
                    images=own["test_images"].median(),
                    right=right,
                )
            )
    return found


def _curves(rows: pd.DataFrame, metric: str) -> dict[Curve, pd.DataFrame]:
    """{curve: (rounds, units) means}, the dense network of its pre-training in each."""
    by_cell = rows.groupby(["pretraining", "method", "rounds", "seed"])[metric].mean()
    cells = by_cell.unstack("seed")
    curves = list(dict.fromkeys((p, m) for p, m, _ in cells.index))
    found = {}
    for pretraining, method in [curve for curve in curves if curve[1] != "dense"]:
        own = cells.loc[(pretraining, method)]
        if (pretraining, "dense") in curves:
            own = pd.concat([cells.loc[(pretraining, "dense")], own])
        found[pretraining, method] = own
    return found


def between(  # noqa: PLR0913 - a claim names all of these
    evidence: Evidence,
    high: Curve,
    low: Curve,
    criterion: str,
    levels: Levels = SPARSE,
    data: Data = "all",
) -> Iterator[Estimate]:
    """One curve less another, each averaged over the levels that both have.

    var = 2 s^2 / n + s_img^2 / N: s^2 is the mean square of the residuals of curve + unit, fitted
    to the level means of every curve of the task, on (curves - 1) (n - 1) degrees of freedom.

    Args:
        evidence: what a study's records say.
        high: the curve that a claim puts above.
        low: the other.
        criterion: of `CRITERIA`.
        levels: over which each is averaged.
        data: which tasks.

    Yields:
        An estimate for each task that has the records.
    """
    for task in _chosen(evidence, criterion, data):
        cells, speaks_for = task.by_seed, SEEDS
        a, b = _shared(task, task.by_theta, high, low, levels)
        if high[0] != low[0] and a.shape[1] > 1:
            cells, speaks_for = task.by_theta, THETAS
        else:
            a, b = _shared(task, cells, high, low, levels)
        if a.empty:
            continue
        means = {}
        for curve in cells:
            own = task.matrix(cells, curve, levels)
            own = own.loc[own.index.isin(a.index), own.columns.isin(a.columns)]
            if len(own) and own.shape[1] == a.shape[1]:
                means[curve] = own.mean()
        square, df = _interaction([pd.DataFrame(means)])
        # bits are those of seeds, not of theta_seeds
        tested = task if speaks_for == SEEDS else replace(task, right={})
        seeds, images = 2 * square / a.shape[1], tested.image_variance((high, a), (low, b))
        levels_shown = _sparsities(task, a.index)
        yield Estimate(
            where=task.where,
            what=f"{_name(criterion)}, {_compared(high, low)}, {levels_shown}",
            terms=(_term(float((a - b).to_numpy().mean()), seeds, df, images, task.images),),
            n=a.shape[1],
            speaks_for=speaks_for,
        )


def _compared(high: Curve, low: Curve) -> str:
    """One curve less another by what differs, in words."""
    by = 0 if high[0] != low[0] else 1
    return f"{high[by]} less {low[by]}"


def _shared(
    task: Task, cells: dict[Curve, pd.DataFrame], a: Curve, b: Curve, levels: Levels
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The levels and units that two curves share."""
    one, other = (task.matrix(cells, curve, levels) for curve in (a, b))
    rounds, units = one.index.intersection(other.index), one.columns.intersection(other.columns)
    return one.loc[rounds, units], other.loc[rounds, units]


def within(
    evidence: Evidence, curve: Curve, criterion: str, high: Levels, low: Levels
) -> Iterator[Estimate]:
    """The mean over some levels of a curve less that over others.

    var = s^2 (1 / k + 1 / l) / n + s_img^2 / N for k and l levels: s^2 is the mean square of the
    residuals of level + seed within every curve of the task, pooled.

    Args:
        evidence: what a study's records say.
        curve: the curve; the levels `DENSE` are its dense network.
        criterion: of `CRITERIA`.
        high: the levels that a claim puts above.
        low: the others.

    Yields:
        An estimate for each task that has the records.
    """
    for task in _chosen(evidence, criterion, "all"):
        a, b = (task.matrix(task.by_seed, curve, levels) for levels in (high, low))
        seeds = a.columns.intersection(b.columns)
        if a.empty or b.empty or seeds.empty:
            continue
        what = f"{_sparsities(task, a.index)} less {_sparsities(task, b.index)}"
        terms = (_level_contrast(task, curve, a[seeds], b[seeds]),)
        what = f"{_name(criterion)} of {' by '.join(curve)}, {what}"
        yield Estimate(task.where, what, terms, len(seeds), SEEDS)


def beyond_margin(evidence: Evidence, pretraining: str) -> Iterator[Estimate]:
    """How much more than its margin a ticket of IMP-ST at 73.79 % is worse than dense.

    Args:
        evidence: what a study's records say.
        pretraining: p of theta_p.

    Yields:
        An estimate for each task that has the records, over the three criteria of a double win.
    """
    for task in _chosen(evidence, "AT_RA", "all"):
        for row in _less_dense(evidence, task, (pretraining, "IMP-ST"), EXAMPLE):
            yield _beyond_margin(task, row)


def _beyond_margin(task: Task, row: dict[str, Any]) -> Estimate:
    """How much more than its margin a level is worse than dense, of `noninferiority`'s row."""
    terms = tuple(
        Difference(
            -row[f"{c}_margin"] - row[f"{c}_difference"],
            row[f"{c}_se"],
            row[f"{c}_df"],
            -row[f"{c}_skewness"],
        )
        for c in CRITERIA
    )
    what = f"{row['pretraining']} at {100 * row['sparsity']:.1f} %, dense less ticket and margin,"
    return Estimate(task.where, f"{what} worst of three criteria", terms, row["n"], SEEDS)


def extremes(evidence: Evidence, high: Curve, low: Curve) -> Iterator[Estimate]:
    """The extreme double-win sparsity of one curve less another's, of the levels that both have.

    Args:
        evidence: what a study's records say.
        high: the curve that a claim puts above.
        low: the other.

    Yields:
        An `Order` for each task that has the records.
    """
    for task in _chosen(evidence, "AT_RA", "all"):
        known = [
            {row["rounds"]: _beyond_margin(task, row) for row in rows}
            for rows in (_less_dense(evidence, task, curve, SPARSE) for curve in (high, low))
        ]
        if not all(known):
            continue
        a, _ = _shared(task, task.by_seed, high, low, SPARSE)
        rounds = sorted(a.index, key=task.sparsity.__getitem__)
        levels = _sparsities(task, rounds).removeprefix("mean of ")
        what = f"extreme double-win sparsity, {_compared(high, low)}, of {levels}"
        ladders = tuple([own.get(r) for r in rounds] for own in known)
        sparsity = np.array([0.0, *(task.sparsity[r] for r in rounds)])
        yield Order(task.where, what, (), a.shape[1], SEEDS, ladders, sparsity)


def best_over_dense(evidence: Evidence, pretrainings: Sequence[str]) -> Iterator[Estimate]:
    """The sparse level of IMP-ST that is furthest above dense in RA on little data, of any theta_p.

    That it is the best of several is counted against it.

    Args:
        evidence: what a study's records say.
        pretrainings: p of theta_p.

    Yields:
        An estimate for each task that has the records.
    """
    for task in _chosen(evidence, "AT_RA", "limited"):
        curves = [(pretraining, "IMP-ST") for pretraining in pretrainings]
        rows = [r for curve in curves for r in _less_dense(evidence, task, curve, SPARSE)]
        names = [f"AT_RA_{name}" for name in ("difference", "se", "df", "skewness")]
        terms = [Difference(*(row[name] for name in names)) for row in rows]
        if terms:
            best = rows[max(range(len(rows)), key=lambda i: terms[i].difference)]
            which = f"{best['pretraining']} at {100 * best['sparsity']:.1f} %"
            what = f"RA after AT less dense, best of {len(rows)} levels ({which})"
            yield Estimate(task.where, what, tuple(terms), best["n"], SEEDS)


def _less_dense(
    evidence: Evidence, task: Task, curve: Curve, levels: Levels
) -> list[dict[str, Any]]:
    """The known levels of a curve on a task's data, with the number of their seeds."""
    table = evidence.levels
    chosen = (table["pretraining"] == curve[0]) & (table["method"] == curve[1])
    chosen &= (table["dataset"] == task.dataset) & (table["fraction"] == task.fraction)
    chosen &= (table["sparsity"] > levels[0]) & (table["sparsity"] <= levels[1])
    seeds = task.by_seed.get(curve, pd.DataFrame()).count(axis="columns")
    table = table[chosen & (table["status"] != noninferiority.UNKNOWN)]
    table = table[table["rounds"].isin(seeds.index)]
    rows = table.assign(n=table["rounds"].map(seeds)).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _chosen(evidence: Evidence, criterion: str, data: Data) -> list[Task]:
    return [t for t in evidence.tasks if (t.criterion, t.data) == (criterion, data)]


def _level_contrast(task: Task, curve: Curve, a: pd.DataFrame, b: pd.DataFrame) -> Difference:
    """The mean of some levels of a curve less that of others."""
    matrices = [task.matrix(task.by_seed, each, SPARSE) for each in task.by_seed]
    square, df = _interaction(matrices)
    seeds = square * (1 / len(a) + 1 / len(b)) / a.shape[1]
    images = task.image_variance((curve, a), (curve, b))
    return _term(float((a.mean() - b.mean()).mean()), seeds, df, images, task.images)


def _term(effect: float, seeds: float, df: float, images: float, count: float) -> Difference:
    """A contrast from the seeds' part of its variance, on df, and that of `count` images.

    The degrees of freedom of the sum are Satterthwaite's.
    """
    total = seeds + images
    if images > 0:
        df = total**2 / (seeds**2 / df + images**2 / max(count - 1, 1))
    return Difference(effect, float(np.sqrt(total)), df)


def _interaction(matrices: list[pd.DataFrame]) -> tuple[float, float]:
    """The pooled mean square of the residuals of row + column, and its degrees of freedom.

    NaN where no matrix has two rows and two columns.
    """
    squares, df = 0.0, 0
    for matrix in matrices:
        y = matrix.to_numpy(float)
        if min(y.shape) > 1:
            y = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean()
            squares += (y**2).sum()
            df += (y.shape[0] - 1) * (y.shape[1] - 1)
    return (squares / df, df) if df else (np.nan, 1)


def _name(criterion: str) -> str:
    regime, metric = CRITERIA[criterion]
    return f"{metric} after {regime}"


def _where(dataset: Any, fraction: Any) -> str:
    """Data in words: "digits", "10 % of digits"."""
    return f"{dataset}" if fraction == 1 else f"{100 * fraction:g} % of {dataset}"


def _sparsities(task: Task, rounds: Iterable[int]) -> str:
    """Levels in words: "dense", "73.8 %" or "mean of 8 levels, 20.0 to 97.2 %"."""
    shown = [f"{100 * task.sparsity[r]:.1f}" for r in sorted(rounds)]
    if shown == ["0.0"]:
        return "dense"
    if len(shown) == 1:
        return f"{shown[0]} %"
    return f"mean of {len(shown)} levels, {shown[0]} to {shown[-1]} %"


# ------------------------------------------------------------------------------------------
# contrasts of other records


def _over_units(where: str, what: str, by_unit: pd.DataFrame, speaks_for: str) -> Estimate:
    """Means of contrasts over units; rows are units, columns contrasts.

    The variance over units is pooled over the contrasts. Masks of one unit are known exactly.
    """
    n = len(by_unit)
    if n == 1 and speaks_for == MASKS:
        error, df = 0.0, 1
    else:
        error, df = np.sqrt(by_unit.var(ddof=1).mean() / n), max(by_unit.shape[1] * (n - 1), 1)
    terms = tuple(Difference(float(effect), float(error), df) for effect in by_unit.mean())
    return Estimate(where, what, terms, n, speaks_for)


def _attacked(evidence: Evidence) -> Iterator[tuple[str, pd.DataFrame]]:
    """Transfer attacks on theta_AT by IMP-ST and its dense network, task by task."""
    table = evidence.attacks
    if table is None or table.empty:
        return
    table = base_seeds(table)
    table = table[(table["pretraining"] == "AT") & table["method"].isin(["dense", "IMP-ST"])]
    for (dataset, fraction), own in table.groupby(["dataset", "fraction"]):
        yield _where(dataset, fraction), own


def dense_over_sparse_attacked(evidence: Evidence) -> Iterator[Estimate]:
    """The most by which dense exceeds a sparse ticket on an unseen model's images.

    Args:
        evidence: its transfer attacks.

    Yields:
        One estimate per task.
    """
    for where, own in _attacked(evidence):
        accuracy = own.pivot_table(index="seed", columns="rounds", values="transfer_accuracy")
        accuracy = accuracy.dropna()
        if 0 in accuracy and len(accuracy.columns) > 1 and len(accuracy):
            gaps = -accuracy.drop(columns=0).sub(accuracy[0], axis=0)
            what = f"transfer-attack accuracy, dense less the worst of {gaps.shape[1]} levels"
            yield _over_units(where, what, gaps, THESE_IMAGES)


def own_over_transfer_attack(evidence: Evidence) -> Iterator[Estimate]:
    """The most by which a network withstands its own PGD better than an unseen model's images.

    Args:
        evidence: its transfer attacks.

    Yields:
        One estimate per task.
    """
    for where, own in _attacked(evidence):
        own = own.assign(gap=own["RA"] - own["transfer_accuracy"])
        gaps = own.pivot_table(index="seed", columns="rounds", values="gap").dropna()
        if len(gaps):
            what = f"RA less transfer-attack accuracy, most of {gaps.shape[1]} networks"
            yield _over_units(where, what, gaps, THESE_IMAGES)


def widest_over_fat(evidence: Evidence, images: Pictures) -> Iterator[Estimate]:
    """The most by which another basin is wider than FAT's, over theta_p and levels of loss.

    Args:
        evidence: what a study's records say.
        images: on which the loss was computed.

    Yields:
        One estimate; its units are the data that the networks were trained on.
    """
    table = evidence.areas
    if table is None or "FAT" not in set(table["pretraining"]):
        return
    table = table[table["images"] == images]
    areas = table.pivot_table(index="where", columns=["pretraining", "level"], values="area")
    areas = areas.dropna()
    others = areas.drop(columns="FAT", level="pretraining", errors="ignore")
    if len(areas) and len(others.columns) and "FAT" in areas:
        gaps = {(p, at): others[p, at] - areas["FAT", at] for p, at in others.columns}
        what = "share of the plane below its minimum + a level, widest of the others less FAT"
        what += f", {images} images"
        yield _over_units("", what, pd.DataFrame(gaps), NETWORKS)


def similarity(evidence: Evidence, gained: bool) -> Iterator[Estimate]:
    """The similarity of the two pre-trainings whose masks are the most alike, at 73.79 %.

    Args:
        evidence: its pairs of masks.
        gained: instead, how much more alike masks are at the sparsest level than at 73.79 %.

    Yields:
        One estimate.
    """
    if evidence.pairs is None or evidence.pairs.empty:
        return
    pairs = evidence.pairs.astype({"sparsity": float})
    sparsity = pairs["sparsity"]
    example = pairs[(sparsity > EXAMPLE[0]) & (sparsity <= EXAMPLE[1])]
    levels = pd.concat([example.assign(level="example"), sparsest(pairs).assign(level="last")])
    found = levels.pivot_table(index="seed", columns=["level", "pair"], values="similarity")
    found = found.dropna()
    if found.empty or "example" not in found:
        return
    what = "relative similarity at 73.8 %, most alike pair"
    alike = found["example"]
    if gained:
        what = "relative similarity, the sparsest level less 73.8 %, pair that gains most"
        alike = found["last"] - alike
    yield _over_units("", what, alike, MASKS)


def _zero_shares(evidence: Evidence, blocks: dict[str, str]) -> pd.DataFrame:
    """Shares of zero kernels above 1x1 in the sparsest masks.

    Rows are seeds, columns (pretraining, group of blocks); blocks names each block's group.
    """
    if evidence.kernels is None or evidence.kernels.empty:
        return pd.DataFrame()
    table = evidence.kernels
    table = table[(table["kernel"] > 1) & (table["rounds"] == table["rounds"].max())]
    table = table.assign(blocks=table["block"].map(blocks)).dropna(subset="blocks")
    counts = table.groupby(["seed", "pretraining", "blocks"])[["zero", "kernels"]].sum()
    shares = counts["zero"].astype(float) / counts["kernels"].astype(float)
    return shares.unstack(["pretraining", "blocks"]).dropna()


_ALL = {block: "all" for block in ("stem", "B1", "B2", "B3", "B4")}
_HALVES = {"B1": "front", "B2": "front", "B3": "later", "B4": "later"}


def zero_kernels_over(evidence: Evidence, pretraining: str, sign: int) -> Iterator[Estimate]:
    """The most (sign 1) or least by which another theta_p's masks have more zero kernels.

    Args:
        evidence: what a study's records say.
        pretraining: the one that the claim puts at one end.
        sign: 1 if it shall have the most: the largest lead of another; -1 if the fewest: the
            largest lead over another.

    Yields:
        An estimate for each task that has the records.
    """
    shares = _zero_shares(evidence, _ALL)
    if pretraining not in shares or shares.shape[1] < 2:
        return
    shares = shares.droplevel("blocks", axis="columns")
    gaps = sign * shares.drop(columns=pretraining).sub(shares[pretraining], axis=0)
    pair = f"another less {pretraining}" if sign > 0 else f"{pretraining} less another"
    yield _over_units("", f"zero kernels above 1x1, sparsest masks, {pair}", gaps, MASKS)


def zero_kernels_in(
    evidence: Evidence, pretraining: str, more: str, fewer: str
) -> Iterator[Estimate]:
    """The share of zero kernels in one half of the residual blocks less that in the other.

    Args:
        evidence: what a study's records say.
        pretraining: whose masks.
        more: "front" (B1, B2) or "later" (B3, B4).
        fewer: the other.

    Yields:
        An estimate for each task that has the records.
    """
    shares = _zero_shares(evidence, _HALVES)
    if {(pretraining, more), (pretraining, fewer)} <= set(shares.columns):
        gap = shares[pretraining, more] - shares[pretraining, fewer]
        what = f"zero kernels above 1x1 of {pretraining}, {more} blocks less {fewer}"
        yield _over_units("", what, pd.DataFrame({"gap": gap}), MASKS)
