"""Differences to the dense network with their standard errors, over seeds and test images.

An accuracy varies for two reasons: training again gives another network (the seed), and the test
images are a sample of all that could have been taken. Both are in the standard errors here.

The model of one theta_p, data set, fraction and criterion is y_cs = mu_c + b_s + e_cs: cell c is a
level of a method, b_s (variance s_b^2) is luck that all networks of training seed s share, e_cs
(variance s_r^2) is a network's own. Both variances are pooled over all cells, since three seeds
tell little of one, and rho = s_b^2 / (s_b^2 + s_r^2) says how much pairing by seed is worth.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri, stdtrit

from dwlt_lib.analysis.tables import GROUP, TASK, replicates

Outcomes = Mapping[str, Mapping[str, np.ndarray]]
"""{id of a transfer: {SA, RA or worst: which test images are right, bool (N,)}}, as
`records.outcomes_of` gives it."""

CRITERIA = {"ST_SA": ("ST", "SA"), "AT_SA": ("AT", "SA"), "AT_RA": ("AT", "RA")}
"""{criterion: (regime, metric)} (paper, Table 1)."""

STRONG = {"AT_worst": ("AT", "worst")}
"""The criterion beside them: right under every attack that was tried after AT."""

CONFIDENCE = 0.95
"""Of each one-sided bound."""

POWER = 0.8
"""How often a ticket that is truly equal to dense shall be called `matches`."""

MIN_PAIRED_DF = 5
"""Below so many degrees of freedom, seeds are not paired: Student's t costs more than it gains."""


@dataclass(frozen=True)
class Noise:
    """Variances of accuracies over seeds, pooled over the cells of one theta_p and criterion."""

    residual: float
    """s_r^2, of a network's own luck; all of the variance where seeds are not paired."""
    rho: float
    """Share of the variance that the networks of one seed have in common, in [0, 1]."""
    df: float
    """Degrees of freedom of `residual`; 0 where no cell has two seeds (residual is NaN)."""
    rho_variance: float = 0.0
    """Variance of the estimate `rho`."""


def fit_noise(cells: list[dict[int, float]]) -> Noise:
    """Pool the variance over seeds: a two-way layout without interaction (Searle et al. 1992).

    The residuals of the least-squares fit of cell + seed estimate s_r^2, whatever seeds share. The
    variance of the fitted effects b of S seeds, each counted once, estimates s_b^2 + c s_r^2, where
    c is known from the layout; so by the delta method, with total = s_b^2 + s_r^2,

        var(rho) = 2 (1 / (S - 1) + 1 / df) (s_r^2 (s_b^2 + c s_r^2) / total^2)^2

    Where the layout leaves fewer than MIN_PAIRED_DF degrees of freedom, nothing is taken as shared
    and s_r^2 is the variance within cells. That hangs on the layout alone: a test of the data
    beforehand makes bounds too narrow.

    Args:
        cells: {seed: accuracy} of each cell, at least one value in each.

    Returns:
        The variances, their ratio and the degrees of freedom.
    """
    values = np.array([value for cell in cells for value in cell.values()])
    cell_of = np.repeat(np.arange(len(cells)), [len(cell) for cell in cells])
    seeds, seed_of = np.unique([s for cell in cells for s in cell], return_inverse=True)
    within_df = len(values) - len(cells)
    if within_df <= 0:
        return Noise(np.nan, 0.0, 0)
    design = np.hstack([np.eye(len(cells))[cell_of], np.eye(len(seeds))[seed_of]])
    rank = np.linalg.matrix_rank(design)
    df = float(len(values) - rank)
    is_connected = rank == len(cells) + len(seeds) - 1
    if df < MIN_PAIRED_DF or not is_connected:
        means = np.bincount(cell_of, values) / np.bincount(cell_of)
        return Noise(((values - means[cell_of]) ** 2).sum() / within_df, 0.0, within_df)
    solve = np.linalg.pinv(design)
    residual = ((values - design @ (solve @ values)) ** 2).sum() / df
    to_effects = solve[len(cells) :] - solve[len(cells) :].mean(axis=0)
    seeds_df = len(seeds) - 1
    of_residual = (to_effects**2).sum() / seeds_df * residual  # c s_r^2
    shared = max(((to_effects @ values) ** 2).sum() / seeds_df - of_residual, 0.0)
    total = shared + residual
    if total == 0:
        return Noise(0.0, 0.0, df)
    scale = residual * (shared + of_residual) / total**2
    return Noise(residual, shared / total, df, 2 * (1 / seeds_df + 1 / df) * scale**2)


@dataclass(frozen=True)
class Difference:
    """A level less its dense network, by one criterion; accuracies in [0, 1]."""

    difference: float
    """Estimated difference d."""
    se: float
    """Standard error of d, over seeds and test images; NaN where it cannot be told."""
    df: float
    """Degrees of freedom of se (Satterthwaite)."""
    skewness: float = 0.0
    """Of d, which the test images bring: few of them are right for one network alone."""
    seed_se: float = np.nan
    """The seeds' part of se."""
    image_se: float = np.nan
    """The test images' part of se."""

    def low(self, confidence: float = CONFIDENCE) -> float:
        """Lower bound of the true difference, one-sided.

        Student's t about d + se skewness (2 z^2 + 1) / 6, with z the normal quantile of confidence:
        a skewed mean goes with its own standard error (Johnson 1978; Hall 1992, section 3.10).

        Args:
            confidence: of the bound, in (0.5, 1).

        Returns:
            The bound, in [-1, 1] or a little beyond; NaN where `se` is.
        """
        return self._centre(confidence) - stdtrit(self.df, confidence) * self.se

    def high(self, confidence: float = CONFIDENCE) -> float:
        """Upper bound of the true difference, one-sided, as `low`.

        Args:
            confidence: of the bound, in (0.5, 1).

        Returns:
            The bound, in [-1, 1] or a little beyond; NaN where `se` is.
        """
        return self._centre(confidence) + stdtrit(self.df, confidence) * self.se

    def _centre(self, confidence: float) -> float:
        return self.difference + self.se * self.skewness * (2 * ndtri(confidence) ** 2 + 1) / 6


@dataclass(frozen=True)
class Runs:
    """The replicates of one cell by one criterion."""

    values: dict[int, float]
    """{seed: accuracy in [0, 1]}."""
    bits: dict[int, np.ndarray] = field(default_factory=dict)
    """{seed: (N,) which test images are right}; empty where that was not stored."""
    images: float = np.nan
    """N, the number of test images; NaN: not known."""


def difference(level: Runs, dense: Runs, noise: Noise) -> Difference:
    """A level less dense, paired over seeds as far as pairing helps, and over test images.

        d = mean_l - (1 - rho) mean_0(all its seeds) - rho mean_0(the level's seeds)
        var(d) = s_r^2 ((1 + rho) / n_l + (1 - rho) / n_0) + var(rho) B^2 + s_img^2 / N

    The first line is the regression estimator of double sampling (Cochran 1977, section 12.6). With
    rho 0 it is the difference of means, with variance s_p^2 (1/n_l + 1/n_0); as rho nears 1 it
    becomes the mean of the paired differences. B, by which mean_0 of the level's seeds lies off
    mean_0 of all, is what an error of rho costs; it is 0 where both have the same seeds. s_img^2 is
    the variance over images of the difference in the probability to be right: the variance of the
    images' mean differences, less what the seeds' coin flips add to it, which s_r^2 holds already
    (crossed random effects; Brennan 2001, chapter 3). Without bits, images are taken as unpaired:
    p (1 - p) of both networks. The error of each part goes into the degrees of freedom.

    Args:
        level: the level's runs.
        dense: the dense network's runs, with all of the level's seeds and perhaps more.
        noise: of their theta_p and criterion.

    Returns:
        The difference with its standard error, NaN where no variance over seeds is known.
    """
    n, n_dense = len(level.values), len(dense.values)
    weights = {("level", s): 1 / n for s in level.values}
    weights |= {("dense", s): -(1 - noise.rho) / n_dense for s in dense.values}
    for s in level.values:
        weights["dense", s] -= noise.rho / n
    runs = {"level": level, "dense": dense}
    d = sum(w * runs[which].values[s] for (which, s), w in weights.items())
    mean_dense = sum(dense.values.values()) / n_dense
    off = sum(dense.values[s] for s in level.values) / n - mean_dense
    seeds = noise.residual * ((1 + noise.rho) / n + (1 - noise.rho) / n_dense)
    seeds += noise.rho_variance * off**2
    if level.bits and dense.bits:
        images, images_error, third = _of_images(runs, weights)
    else:
        images, images_error = _of_unpaired_images(runs)
        third = 0.0
    total, df = seeds + images, noise.df
    if images_error > 0 and df > 0:
        df = total**2 / (seeds**2 / df + images_error / 2)
    skewness = third / total**1.5 if total > 0 else 0.0
    return Difference(d, np.sqrt(total), df, skewness, np.sqrt(seeds), np.sqrt(images))


def _of_images(
    runs: dict[str, Runs], weights: dict[tuple[str, int], float]
) -> tuple[float, float, float]:
    """What the sample of images does to a difference, from bits.

    Returns s_img^2 / N, at least 0; the variance of that; and the difference's third central
    moment.
    """
    bits = np.array([runs[which].bits[s] for which, s in weights], dtype=float)
    w, images = np.array(list(weights.values())), bits.shape[1]
    flips = 0.0
    for which in runs:
        own = np.array([key[0] == which for key in weights])
        if own.sum() > 1:
            flips += (w[own] ** 2).sum() * bits[own].var(axis=0, ddof=1).mean()
    per_image = w @ bits
    centred = per_image - per_image.mean()
    second, third, fourth = (float((centred**k).mean()) for k in (2, 3, 4))
    variance = max(second * images / max(images - 1, 1) - flips, 0.0) / images
    return variance, (fourth - second**2) / images**3, third / images**2


def _of_unpaired_images(runs: dict[str, Runs]) -> tuple[float, float]:
    """The same variance, and that of it, where it is not known which images are right."""
    total = error = 0.0
    for own in runs.values():
        p = float(np.mean(list(own.values.values())))
        if own.images == own.images:  # NaN, not known, equals nothing
            total += p * (1 - p) / own.images
            error = 2 * total**2 / max(own.images - 1, 1)
    return total, error


def differences(
    table: pd.DataFrame, outcomes: Outcomes | None = None, confidence: float = CONFIDENCE
) -> pd.DataFrame:
    """Every level's difference to its dense network, by every criterion, with its bounds.

    Args:
        table: transfers, as `tables.replicates` takes them; with a column id if outcomes are given.
        outcomes: the correctness per image; without it the images' part of the error is that of two
            networks tested on different images, which is larger.
        confidence: of each one-sided bound, in (0.5, 1).

    Returns:
        One row per (pretraining, method, dataset, fraction, rounds > 0, criterion) whose dense
        network has all of the level's seeds: the fields of `Difference`, low, high, rho, n_level,
        n_dense and test_images. The criterion AT_worst is there where every run of both has
        outcomes of attacks beyond RA's.

    Raises:
        ValueError: one line, as `tables.replicates`.
    """
    rows = []
    for group, criterion, cells in runs_by_cell(table, outcomes):
        noise = fit_noise([own.values for own in cells.values()])
        for (method, rounds), level in cells.items():
            dense = cells.get(("dense", 0))
            if rounds == 0 or dense is None or not level.values.keys() <= dense.values.keys():
                continue
            d = difference(level, dense, noise)
            row = dict(zip(TASK, group, strict=True)) | asdict(d)
            row |= {"method": method, "rounds": rounds, "criterion": criterion, "rho": noise.rho}
            row |= {"low": d.low(confidence), "high": d.high(confidence)}
            row |= {"n_level": len(level.values), "n_dense": len(dense.values)}
            rows.append(row | {"test_images": level.images})
    numbers = [*(each.name for each in fields(Difference)), "low", "high", "rho"]
    columns = [*GROUP, "rounds", "criterion", *numbers, "n_level", "n_dense", "test_images"]
    return pd.DataFrame(rows, columns=columns)


def runs_by_cell(
    table: pd.DataFrame, outcomes: Outcomes | None = None
) -> Iterator[tuple[tuple, str, dict[tuple[str, int], Runs]]]:
    """The replicates of a table, criterion by criterion.

    Args:
        table: transfers, as `tables.replicates` takes them.
        outcomes: the correctness per image.

    Yields:
        (pretraining, dataset, fraction), a criterion of `CRITERIA` or `STRONG`, and the runs of
        each cell (method, rounds), of which ("dense", 0) is the dense network.

    Raises:
        ValueError: one line, as `tables.replicates`.
    """
    groups: dict[tuple, dict[tuple, list[dict]]] = {}
    for run in replicates(table).to_dict("records"):
        cells = groups.setdefault(tuple(run[key] for key in TASK), {})
        cells.setdefault((run["regime"], run["method"], run["rounds"]), []).append(run)
    for group, own in sorted(groups.items()):
        for criterion, (regime, metric) in (CRITERIA | STRONG).items():
            cells = {
                (method, rounds): _runs(runs, outcomes or {}, metric)
                for (each, method, rounds), runs in own.items()
                if each == regime
            }
            cells = {cell: runs for cell, runs in cells.items() if runs.values}
            if cells:
                yield group, criterion, cells


def _runs(rows: list[dict[Hashable, Any]], outcomes: Outcomes, metric: str) -> Runs:
    """The runs of one cell; what was averaged in their accuracies is averaged in their bits."""
    rows = [row for row in rows if not np.isnan(row["SA"])]  # those that did not diverge
    bits = {}
    for row in rows:
        known = [outcomes[id] for id in row["ids"] if id in outcomes]
        if metric == "worst":  # it says more than RA only where a further attack was tried
            known = [own for own in known if own.keys() > {"SA", "RA", "worst"}]
        if known:
            bits[row["seed"]] = np.mean([own[metric] for own in known], axis=0)
    if len(bits) < len(rows):
        bits = {}
    if metric == "worst":
        values = {seed: float(own.mean()) for seed, own in bits.items()}
    else:
        values = {row["seed"]: row[metric] for row in rows if not np.isnan(row[metric])}
    images = [len(own) for own in bits.values()] or [row["test_images"] for row in rows]
    return Runs(values, bits, images[0] if images else np.nan)


def bootstrap_bounds(
    level: np.ndarray, dense: np.ndarray, rng: np.random.Generator, draws: int = 1000
) -> tuple[float, float]:
    """One-sided bounds of a difference by resampling seeds and images (Owen 2007, pigeonhole).

    It pools nothing over levels and is a check of `difference`, on the wide side where seeds are
    few.

    Args:
        level: (n_l, N) which images each run of the level has right.
        dense: (n_0, N) the same of dense.
        rng: of the draws.
        draws: how many.

    Returns:
        The lower and the upper bound.
    """
    of_level, of_dense = (
        rng.multinomial(len(bits), np.full(len(bits), 1 / len(bits)), size=draws) @ bits / len(bits)
        for bits in (level, dense)
    )
    images = rng.integers(level.shape[1], size=(draws, level.shape[1]))
    found = np.take_along_axis(of_level - of_dense, images, axis=1).mean(axis=1)
    low, high = np.quantile(found, [1 - CONFIDENCE, CONFIDENCE])
    return float(low), float(high)


SEED_COLUMNS = {
    "theta_seed": "theta_p",
    "mask_seed": "mask",
    "subset_seed": "subset",
    "seed": "training",
}
"""The seeds that a table of transfers may vary, and what each of them draws."""


def variance_components(table: pd.DataFrame) -> pd.DataFrame:
    """How much each seed, and the test images, move an accuracy: standard deviations.

    For a seed that varies: the cells that differ in it alone are compared. The variance of their
    means over training seeds, less the training seeds' share s_r^2 / n of it (`fit_noise`),
    estimates its own (Searle et al. 1992, section 3.6). The images' is binomial,
    sqrt(p (1 - p) / N).

    Args:
        table: transfers with a column for each seed that varies, of `SEED_COLUMNS`.

    Returns:
        One row per (dataset, fraction, criterion, source): source (theta_p, mask, subset, training,
        images), sd (in [0, 1]; NaN: the seed does not vary) and df.

    Raises:
        ValueError: one line, as `tables.replicates`.
    """
    table = table.assign(**{c: table.get(c, 0) for c in SEED_COLUMNS})
    table = table.assign(method=table["method"].where(table["rounds"] > 0, "dense"))
    columns = ["dataset", "fraction", "criterion", "source", "sd", "df"]
    rows = []
    for task, own in table.groupby(["dataset", "fraction"]):
        for criterion, (regime, metric) in CRITERIA.items():
            runs = own[(own["regime"] == regime) & own[metric].notna()]
            if len(runs):
                found = _components(runs, metric)
                rows += [(*task, criterion, source, *known) for source, known in found.items()]
    return pd.DataFrame(rows, columns=columns)


def _components(runs: pd.DataFrame, metric: str) -> dict[str, tuple[float, int]]:
    """{source: (standard deviation, degrees of freedom)} of one criterion."""
    *others, _ = SEED_COLUMNS
    cell = ["pretraining", "method", "rounds", *others]
    cells = runs.groupby(cell)
    noise = fit_noise([dict(zip(own["seed"], own[metric], strict=True)) for _, own in cells])
    by_cell = cells[metric].agg(["mean", "var", "size"])
    df = int((by_cell["size"] - 1).sum())
    found: dict[str, tuple[float, int]] = {}
    for column in others:
        groups = by_cell.groupby([name for name in cell if name != column])
        own = groups.agg(var=("mean", "var"), count=("mean", "size"), size=("size", "mean"))
        own = own[own["count"] > 1]
        between = int((own["count"] - 1).sum())
        found[SEED_COLUMNS[column]] = np.nan, 0
        if between and df:
            excess = (own["var"] - noise.residual / own["size"]) * (own["count"] - 1)
            sd = np.sqrt(max(excess.sum() / between, 0.0))
            found[SEED_COLUMNS[column]] = float(sd), between
    training = (by_cell["var"] * (by_cell["size"] - 1)).sum() / df if df else np.nan
    found["training"] = float(np.sqrt(training)), df
    p, n = runs[metric].mean(), runs.get("test_images", pd.Series(np.nan, runs.index)).mean()
    found["images"] = float(np.sqrt(p * (1 - p) / n)), 0
    return found


def seeds_needed(
    levels: int, margins: Sequence[float], seed_sds: Sequence[float], image_ses: Sequence[float]
) -> tuple[int, int] | None:
    """The fewest seeds with which a ticket truly equal to dense is called `matches` often enough.

    Its lower bounds must lie above minus the margin by all criteria at once, which are taken as
    independent. Dense is compared with every level, so it gets n sqrt(levels) seeds (Dunnett 1955).

    Args:
        levels: how many are compared with one dense network.
        margins: one for each criterion, in [0, 1].
        seed_sds: standard deviations of accuracies over seeds, one for each criterion.
        image_ses: the images' parts of the standard errors, one for each criterion.

    Returns:
        (n, n_dense); None if no n up to 50 will do, since the test images are too few.
    """
    limits, sds, images = (np.asarray(values) for values in (margins, seed_sds, image_ses))
    for n in range(2, 51):
        n_dense = int(np.ceil(n * np.sqrt(levels)))
        seeds = sds * np.sqrt(1 / n + 1 / n_dense)
        df = levels * (n - 1) + n_dense - 1
        se = np.hypot(seeds, images)
        with np.errstate(divide="ignore"):
            passes = ndtr(limits / se - stdtrit(df, CONFIDENCE))
        if passes.prod() >= POWER:
            return n, n_dense
    return None


def spread(table: pd.DataFrame, ddof: int = 1) -> pd.DataFrame:
    """Mean and standard deviation of SA and RA over seeds, one row per (curve, regime, rounds).

    Args:
        table: transfers, as `tables.replicates` takes them.
        ddof: 1 for the sample's standard deviation, 0 for the population's.

    Returns:
        pretraining, method, dataset, fraction, regime, rounds, SA, RA (means in [0, 1]), SA_std,
        RA_std (NaN for one seed and ddof 1), seeds (how many), sparsity (the level's, in [0, 1]).

    Raises:
        ValueError: one line, as `tables.replicates`.
    """
    by_level = replicates(table).groupby([*GROUP, "regime", "rounds"])
    means, stds = by_level[["SA", "RA"]].mean(), by_level[["SA", "RA"]].std(ddof=ddof)
    levels = means.assign(SA_std=stds["SA"], RA_std=stds["RA"], seeds=by_level.size())
    return levels.assign(sparsity=by_level["sparsity"].first()).reset_index()


def means_as_markdown(table: pd.DataFrame) -> str:
    """Means over seeds with one standard deviation, as a table for a page.

    Args:
        table: transfers, as `tables.replicates` takes them.

    Returns:
        Markdown, a row per level: in percent SA after ST, and SA and RA after AT, with how many
        seeds; `-` where there are none, and no deviation where there is one seed.
    """
    levels: dict[tuple, dict[str, dict]] = {}
    for row in spread(table).to_dict("records"):
        key = (row["dataset"], -row["fraction"], row["method"] != "dense", row["method"])
        key = (*key, row["rounds"], row["pretraining"], row["sparsity"])
        levels.setdefault(key, {})[row["regime"]] = row
    heads = ["masks", "sparsity (%)", "theta_p", "data", "SA after ST", "SA after AT"]
    heads += ["RA after AT", "seeds"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for (dataset, fraction, _, method, _, pretraining, sparsity), own in sorted(levels.items()):
        cells = [
            method,
            f"{100 * sparsity:.1f}",
            pretraining,
            f"{-100 * fraction:g} % of {dataset}",
        ]
        cells += [_mean(own.get(regime), metric) for regime, metric in CRITERIA.values()]
        cells.append("/".join(str(row["seeds"]) for _, row in sorted(own.items())))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(row: dict | None, metric: str) -> str:
    if row is None or np.isnan(row[metric]):
        return "-"
    deviation = row[f"{metric}_std"]
    spread_of = "" if np.isnan(deviation) else f" ± {100 * deviation:.1f}"
    return f"{100 * row[metric]:.1f}{spread_of}"
