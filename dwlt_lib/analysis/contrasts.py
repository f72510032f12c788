"""Contrasts of means over a study's records, with their errors.

The unit of replication is the seed: levels of one seed share its luck and count as one. Contrasts
between curves (theta_p or method) average each curve over its levels first, and their error is the
interaction of curve and seed; those within a curve have the interaction of level and seed as error
(a split plot; Cox and Reid 2000, section 6.4). Both are pooled over all curves of a task, since
three seeds tell little of one curve alone. Such an interval speaks for further training seeds of
these tickets. It speaks for theta_p drawn anew only where both curves have several theta_seeds,
which are then the unit.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from dwlt_lib.analysis import noninferiority
from dwlt_lib.analysis.double_win import leading
from dwlt_lib.analysis.paper_results import main_datasets
from dwlt_lib.analysis.statistics import CRITERIA, Difference, Outcomes, Runs, runs_by_cell
from dwlt_lib.analysis.tables import GROUP, base_seeds, replicates, sparsest, sparsities
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


NOTHING = Estimate("", "", (Difference(np.nan, np.nan, np.nan),), 0, "")
"""Of a contrast whose records are missing."""


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
    criterion: str
    """Of `CRITERIA`."""
    data: Data
    """Which kind they are."""
    sparsity: dict[int, float]
    """Of each level, by rounds."""
    runs: dict[tuple[str, str, int], Runs]
    """Of each (pretraining, method, rounds), by the unit of replication; dense networks have the
    method "dense"."""
    speaks_for: str = SEEDS
    """The population of the units: training seeds with the base theta_p, or `THETAS`."""
    of_thetas: "Task | None" = None
    """The same with theta_seeds as units: means over training seeds."""

    @property
    def where(self) -> str:
        """The data in words."""
        return where(self.dataset, self.fraction)

    @property
    def curves(self) -> list[Curve]:
        """All of which there are runs."""
        return list(dict.fromkeys((pretraining, method) for pretraining, method, _ in self.runs))

    def matrix(self, curve: Curve, levels: Levels) -> pd.DataFrame:
        """The accuracies of some of a curve's levels.

        Args:
            curve: the curve; one that is not there has no levels.
            levels: which of them.

        Returns:
            (rounds, units), without units that lack one of these levels.
        """
        own = {
            rounds: runs.values
            for (pretraining, method, rounds), runs in self.runs.items()
            if (pretraining, method) == tuple(curve)
            and levels[0] < self.sparsity[rounds] <= levels[1]
        }
        return pd.DataFrame.from_dict(own, orient="index").dropna(axis="columns")

    def shared(self, a: Curve, b: Curve, levels: Levels) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The levels and units that two curves share.

        Args:
            a: a curve.
            b: another.
            levels: of these.

        Returns:
            (rounds, units) of each.
        """
        one, other = self.matrix(a, levels), self.matrix(b, levels)
        rounds, units = one.index.intersection(other.index), one.columns.intersection(other.columns)
        return one.loc[rounds, units], other.loc[rounds, units]

    def compare(
        self,
        what: str,
        high: tuple[Curve, pd.DataFrame],
        low: tuple[Curve, pd.DataFrame],
        noise: tuple[float, float],
    ) -> Estimate:
        """The mean of some levels of a curve less that of others, or of another curve's.

        Args:
            what: the contrast, in words.
            high: a curve, and the (rounds, units) accuracies over which the mean is taken.
            low: the same of the mean that is subtracted, with the same units.
            noise: the variance of one unit's contrast, and its degrees of freedom. Those of the
                sum with the images' are Satterthwaite's.

        Returns:
            The estimate.
        """
        (_, a), (_, b) = high, low
        n, (variance, df) = a.shape[1], noise
        units, (images, count) = variance / n, self._image_variance(high, low)
        total = units + images
        if images > 0:
            df = total**2 / (units**2 / df + images**2 / max(count - 1, 1))
        effect = float(a.to_numpy().mean() - b.to_numpy().mean())
        regime, metric = CRITERIA[self.criterion]
        term = Difference(effect, float(np.sqrt(total)), df)
        return Estimate(self.where, f"{metric} after {regime}{what}", (term,), n, self.speaks_for)

    def _image_variance(
        self, high: tuple[Curve, pd.DataFrame], low: tuple[Curve, pd.DataFrame]
    ) -> tuple[float, float]:
        """The variance of the difference of two means by the draw of test images; their number.

        With bits it is the variance over images of the mean difference, less what the seeds add to
        that, which the seeds' error holds already; else p (1 - p) / N of both means, as if they
        were tested on different images; 0 where their number is not known.
        """
        try:
            a, b = (self._right(*side) for side in (high, low))
        except KeyError:
            images = next(iter(self.runs.values())).images
            means = [own.to_numpy().mean() for _, own in (high, low)]
            variance = sum(mean * (1 - mean) for mean in means) / images
            return (0.0 if np.isnan(variance) else variance), images
        n, images = (a - b).shape
        of_seeds = (a - b).var(axis=0, ddof=1).mean() / n if n > 1 else 0.0
        return max((a - b).mean(axis=0).var(ddof=1) - of_seeds, 0.0) / images, images

    def _right(self, curve: Curve, cells: pd.DataFrame) -> np.ndarray:
        """(units, images) the share of the levels at which an image is right."""
        levels = [self.runs[*curve, int(rounds)].bits for rounds in cells.index]
        return np.array([np.mean([bits[int(u)] for bits in levels], axis=0) for u in cells.columns])


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
        """Everything that transfers say of accuracies: a task for each criterion and share."""
        table = self.transfers
        rows, by_theta = replicates(table), {}
        if "theta_seed" in table.columns and table["theta_seed"].nunique() > 1:
            drawn = [replicates(own).assign(seed=t) for t, own in table.groupby("theta_seed")]
            by_theta = _runs_by_task(pd.concat(drawn), {})
        main, found = main_datasets(rows), []
        for key, runs in sorted(_runs_by_task(table, self.outcomes).items()):
            dataset, fraction, criterion = key
            data: Data = "all" if dataset in main else "further"
            if fraction < 1:
                data = "limited"
            if criterion not in CRITERIA or (data == "limited" and dataset not in main):
                continue
            own = rows[(rows["dataset"] == dataset) & (rows["fraction"] == fraction)]
            task = Task(dataset, fraction, criterion, data, sparsities(own), runs)
            of_thetas = replace(task, runs=by_theta.get(key, {}), speaks_for=THETAS)
            found.append(replace(task, of_thetas=of_thetas))
        return found

    @cached_property
    def levels(self) -> pd.DataFrame:
        """How they differ from dense, of `noninferiority.noninferiority`."""
        return noninferiority.noninferiority(self.transfers, self.outcomes, self.margins)


def _runs_by_task(table: pd.DataFrame, outcomes: Outcomes) -> dict[tuple, dict[tuple, Runs]]:
    """{(data set, fraction, criterion): {(pretraining, method, rounds): its runs}}."""
    found: dict[tuple, dict[tuple, Runs]] = {}
    for (pretraining, dataset, fraction), criterion, cells in runs_by_cell(table, outcomes):
        own = {(pretraining, *cell): runs for cell, runs in cells.items()}
        found.setdefault((dataset, fraction, criterion), {}).update(own)
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
        thetas = task.of_thetas
        if thetas and high[0] != low[0] and thetas.shared(high, low, levels)[0].shape[1] > 1:
            task = thetas
        a, b = task.shared(high, low, levels)
        if a.empty:
            continue
        means = {}
        for curve in task.curves:
            own = task.matrix(curve, levels)
            own = own.loc[own.index.isin(a.index), own.columns.isin(a.columns)]
            if len(own) and own.shape[1] == a.shape[1]:
                means[curve] = own.mean()
        square, df = _interaction([pd.DataFrame(means)])
        what = f", {_less(high, low)}, {_sparsities(task, a.index)}"
        yield task.compare(what, (high, a), (low, b), (2 * square, df))


def _less(high: Curve, low: Curve) -> str:
    """One curve less another by what differs, in words."""
    by = 0 if high[0] != low[0] else 1
    return f"{high[by]} less {low[by]}"


def within(
    evidence: Evidence, curve: Curve, criterion: str, high: Levels, low: Levels | None = None
) -> Iterator[Estimate]:
    """The mean over some levels of a curve less that over others.

    var = s^2 (1 / k + 1 / l) / n + s_img^2 / N for k and l levels: s^2 is the mean square of the
    residuals of level + seed within every curve of the task, pooled.

    Args:
        evidence: what a study's records say.
        curve: the curve.
        criterion: of `CRITERIA`.
        high: the levels that a claim puts above.
        low: the others; None: the dense network.

    Yields:
        An estimate for each task that has the records.
    """
    lower, levels = (curve, low) if low else ((curve[0], "dense"), DENSE)
    for task in _chosen(evidence, criterion, "all"):
        a, b = task.matrix(curve, high), task.matrix(lower, levels)
        seeds = a.columns.intersection(b.columns)
        if a.empty or b.empty or seeds.empty:
            continue
        square, df = _interaction([task.matrix(each, SPARSE) for each in task.curves])
        noise = square * (1 / len(a) + 1 / len(b)), df
        levels_shown = f"{_sparsities(task, a.index)} less {_sparsities(task, b.index)}"
        what = f" of {' by '.join(curve)}, {levels_shown}"
        yield task.compare(what, (curve, a[seeds]), (lower, b[seeds]), noise)


def beyond_margin(evidence: Evidence, pretraining: str) -> Iterator[Estimate]:
    """How much more than its margin a ticket of IMP-ST at 73.79 % is worse than dense.

    Args:
        evidence: what a study's records say.
        pretraining: p of theta_p.

    Yields:
        An estimate for each task that has the records, over the three criteria of a double win.
    """
    for task in _chosen(evidence, "AT_RA", "all"):
        yield from _beyond_margin(evidence, task, (pretraining, "IMP-ST"), EXAMPLE).values()


def _beyond_margin(
    evidence: Evidence, task: Task, curve: Curve, levels: Levels
) -> dict[int, Estimate]:
    """How much more than its margin each level is worse than dense, by rounds."""
    found = {}
    for row in _less_dense(evidence, task, curve, levels):
        less = {c: _difference(row, c) for c in CRITERIA}
        terms = tuple(
            replace(d, difference=-row[f"{c}_margin"] - d.difference, skewness=-d.skewness)
            for c, d in less.items()
        )
        what = f"{_level(row)}, dense less ticket and margin, worst of three criteria"
        found[row["rounds"]] = Estimate(task.where, what, terms, int(row["AT_RA_n_level"]), SEEDS)
    return found


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
        known = [_beyond_margin(evidence, task, curve, SPARSE) for curve in (high, low)]
        if not all(known):
            continue
        a, _ = task.shared(high, low, SPARSE)
        rounds = sorted(a.index, key=task.sparsity.__getitem__)
        levels = _sparsities(task, rounds).removeprefix("mean of ")
        what = f"extreme double-win sparsity, {_less(high, low)}, of {levels}"
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
        terms = tuple(_difference(row, "AT_RA") for row in rows)
        if terms:
            best = max(rows, key=lambda row: row["AT_RA_difference"])
            what = f"RA after AT less dense, best of {len(rows)} levels ({_level(best)})"
            yield Estimate(task.where, what, terms, int(best["AT_RA_n_level"]), SEEDS)


def _less_dense(
    evidence: Evidence, task: Task, curve: Curve, levels: Levels
) -> list[dict[Hashable, Any]]:
    """The known levels of a curve on a task's data, of `noninferiority`."""
    table = evidence.levels
    same_curve = (table[GROUP] == [*curve, task.dataset, task.fraction]).all(axis="columns")
    known = (table["status"] != noninferiority.UNKNOWN) & table["AT_RA_difference"].notna()
    chosen = same_curve & known & table["sparsity"].between(*levels, inclusive="right")
    return table[chosen].to_dict("records")


def _difference(row: Mapping[Hashable, Any], criterion: str) -> Difference:
    """One criterion of a row of `noninferiority`."""
    return Difference(
        *(row[f"{criterion}_{name}"] for name in ("difference", "se", "df", "skewness"))
    )


def _level(row: Mapping[Hashable, Any]) -> str:
    return f"{row['pretraining']} at {100 * row['sparsity']:.1f} %"


def _chosen(evidence: Evidence, criterion: str, data: Data) -> list[Task]:
    return [t for t in evidence.tasks if (t.criterion, t.data) == (criterion, data)]


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


def where(dataset: Any, fraction: Any) -> str:
    """Data in words.

    Args:
        dataset: the name of a data set.
        fraction: of it, in (0, 1].

    Returns:
        For example "digits" or "10 % of digits".
    """
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


def _attacked(evidence: Evidence, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """What transfer attacks left of theta_AT by IMP-ST and dense: (seeds, rounds) for each task.

    column: transfer_accuracy, or `lead`, of RA over it.
    """
    if evidence.attacks is None or evidence.attacks.empty:
        return
    table = base_seeds(evidence.attacks)
    table = table[(table["pretraining"] == "AT") & table["method"].isin(["dense", "IMP-ST"])]
    table = table.assign(lead=table["RA"] - table["transfer_accuracy"])
    for (dataset, fraction), own in table.groupby(["dataset", "fraction"]):
        found = own.pivot_table(index="seed", columns="rounds", values=column).dropna()
        if len(found):
            yield where(dataset, fraction), found


def dense_over_sparse_attacked(evidence: Evidence) -> Iterator[Estimate]:
    """The most by which dense exceeds a sparse ticket on an unseen model's images.

    Args:
        evidence: its transfer attacks.

    Yields:
        One estimate per task.
    """
    for where, accuracy in _attacked(evidence, "transfer_accuracy"):
        if 0 in accuracy and len(accuracy.columns) > 1:
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
    for where, lead in _attacked(evidence, "lead"):
        what = f"RA less transfer-attack accuracy, most of {lead.shape[1]} networks"
        yield _over_units(where, what, lead, THESE_IMAGES)


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


def similarity(
    evidence: Evidence, level: str, what: str, less: str | None = None
) -> Iterator[Estimate]:
    """The relative similarity of the pair of pre-trainings of which it is the largest.

    Args:
        evidence: its pairs of masks.
        level: "example" (73.79 %) or "last", the sparsest.
        what: the contrast, in words.
        less: the level whose similarity is subtracted.

    Yields:
        One estimate.
    """
    if evidence.pairs is None or evidence.pairs.empty:
        return
    pairs = evidence.pairs.astype({"sparsity": float})
    example = pairs[pairs["sparsity"].between(*EXAMPLE, inclusive="right")]
    levels = pd.concat([example.assign(level="example"), sparsest(pairs).assign(level="last")])
    found = levels.pivot_table(index="seed", columns=["level", "pair"], values="similarity")
    found = found.dropna()
    if len(found) and "example" in found:
        alike = found[level] - found[less] if less else found[level]
        yield _over_units("", what, pd.DataFrame(alike), MASKS)


_BLOCKS = {"front": ["B1", "B2"], "later": ["B3", "B4"]}  # of a ResNet


def zero_kernels(
    evidence: Evidence, high: Sequence[str], low: Sequence[str], what: str
) -> Iterator[Estimate]:
    """The largest share of zero kernels above 1x1 in the sparsest masks less that in others.

    Args:
        evidence: its zero kernels.
        high: masks of a theta_p and which of their blocks: "STD all", "AT front" (B1, B2) or "AT
            later" (B3, B4).
        low: each of these is subtracted from each of the others, as far as both are there.
        what: the contrast, in words.

    Yields:
        One estimate.
    """
    if evidence.kernels is None or evidence.kernels.empty:
        return
    table = sparsest(evidence.kernels)
    table = table[table["kernel"] > 1]
    parts = {name: table[table["block"].isin(blocks)] for name, blocks in _BLOCKS.items()}
    shares = {}
    for blocks, own in {"all": table, **parts}.items():
        counts = own.groupby(["pretraining", "seed"])[["zero", "kernels"]].sum().astype(float)
        for pretraining, each in (counts["zero"] / counts["kernels"]).groupby("pretraining"):
            shares[f"{pretraining} {blocks}"] = each.droplevel("pretraining")
    pairs = [(a, b) for a in high for b in low if a in shares and b in shares]
    gaps = pd.DataFrame({(a, b): shares[a] - shares[b] for a, b in pairs}).dropna()
    if len(gaps):
        yield _over_units("", what, gaps, MASKS)
