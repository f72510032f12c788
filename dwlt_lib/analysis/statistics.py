"""Differences to the dense network with their standard errors, over seeds and test images.

An accuracy varies for two reasons: training again gives another network (the seed), and the test
images are a sample of all that could have been taken. Both are in the standard errors here.

The model of one theta_p, data set, fraction and criterion is y_cs = mu_c + b_s + e_cs: cell c is a
level of a method, b_s (variance s_b^2) is luck that all networks of training seed s share, e_cs
(variance s_r^2) is a network's own. Both variances are pooled over all cells, since three seeds
tell little of one, and rho = s_b^2 / (s_b^2 + s_r^2) says how much pairing by seed is worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import fdtri, ndtr, stdtrit

from dwlt_lib.analysis.tables import GROUP, base_seeds, replicates

Outcomes = Mapping[str, Mapping[str, np.ndarray]]
"""{id of a transfer: {SA, RA or worst: which test images are right, bool (N,)}}, as
`records.outcomes_of` gives it."""

CRITERIA = {"ST_SA": ("ST", "SA"), "AT_SA": ("AT", "SA"), "AT_RA": ("AT", "RA")}
"""{criterion: (regime, metric)} (paper, Table 1)."""

STRONG = {"AT_worst": ("AT", "worst")}
"""The criterion beside them: right under every attack that was tried after AT."""

CONFIDENCE = 0.95
"""Of each one-sided bound."""


@dataclass(frozen=True)
class Noise:
    """Variances of accuracies over seeds, pooled over the cells of one theta_p and criterion."""

    residual: float
    """s_r^2, of a network's own luck; all of the variance where rho is 0."""
    rho: float
    """Share of the variance that the networks of one seed have in common, in [0, 1)."""
    df: float
    """Degrees of freedom of `residual`; 0 where no cell has two seeds (residual is NaN)."""


def fit_noise(cells: list[dict[int, float]]) -> Noise:
    """Pool the variance over seeds: a two-way layout without interaction (Searle et al. 1992).

    The variance within cells estimates s_b^2 + s_r^2; the residuals of the least-squares fit of
    cell + seed estimate s_r^2. Seeds count as sharing luck where an F test says so at 5 %: taking
    the smaller of both estimates whenever it is smaller would make bounds too narrow.

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
    means = np.bincount(cell_of, values) / np.bincount(cell_of)
    within = ((values - means[cell_of]) ** 2).sum() / within_df
    design = np.hstack([np.eye(len(cells))[cell_of], np.eye(len(seeds))[seed_of]])
    fit, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    residual_df = len(values) - rank
    if residual_df > 0:
        residual = ((values - design @ fit) ** 2).sum() / residual_df
        seeds_df = within_df - residual_df
        of_seeds = (within * within_df - residual * residual_df) / max(seeds_df, 1)
        if of_seeds > residual * fdtri(seeds_df, residual_df, 0.95):
            return Noise(residual, 1 - residual / within, float(residual_df))
    return Noise(within, 0.0, within_df)


@dataclass(frozen=True)
class Difference:
    """A level less its dense network, by one criterion; accuracies in [0, 1]."""

    difference: float
    """Estimated difference d."""
    se: float
    """Standard error of d, over seeds and test images; NaN where it cannot be told."""
    df: float
    """Degrees of freedom of se (Satterthwaite)."""
    seed_se: float
    """The seeds' part of se."""
    image_se: float
    """The test images' part of se."""

    def low(self, confidence: float = CONFIDENCE) -> float:
        """Lower bound of the true difference, one-sided.

        Args:
            confidence: of the bound, in (0.5, 1).

        Returns:
            The bound, in [-1, 1] or a little beyond; NaN where `se` is.
        """
        return self.difference - stdtrit(self.df, confidence) * self.se

    def high(self, confidence: float = CONFIDENCE) -> float:
        """Upper bound of the true difference, one-sided.

        Args:
            confidence: of the bound, in (0.5, 1).

        Returns:
            The bound, in [-1, 1] or a little beyond; NaN where `se` is.
        """
        return self.difference + stdtrit(self.df, confidence) * self.se


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
        var(d) = s_r^2 ((1 + rho) / n_l + (1 - rho) / n_0) + s_img^2 / N

    The first line is the regression estimator of double sampling (Cochran 1977, section 12.6). With
    rho 0 it is the difference of means, with variance s_p^2 (1/n_l + 1/n_0); as rho nears 1 it
    becomes the mean of the paired differences. s_img^2 is the variance over images of the
    difference in the probability to be right: the variance of the images' mean differences, less
    what the seeds' coin flips add to it, which s_r^2 holds already (crossed random effects; Brennan
    2001, chapter 3). Without bits, images are taken as unpaired: p (1 - p) of both networks.

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
    seeds = noise.residual * ((1 + noise.rho) / n + (1 - noise.rho) / n_dense)
    images = _image_variance(runs, weights) if level.bits and dense.bits else _unpaired(runs)
    total, df = seeds + images, noise.df
    if images > 0 and df > 0:
        df = total**2 / (seeds**2 / df + images**2 / max(level.images - 1, 1))
    return Difference(d, np.sqrt(total), df, np.sqrt(seeds), np.sqrt(images))


def _image_variance(runs: dict[str, Runs], weights: dict[tuple[str, int], float]) -> float:
    """s_img^2 / N of `difference`, from bits; at least 0."""
    bits = np.array([runs[which].bits[s] for which, s in weights], dtype=float)
    w = np.array(list(weights.values()))
    per_image = w @ bits
    flips = 0.0
    for which in runs:
        own = np.array([key[0] == which for key in weights])
        if own.sum() > 1:
            flips += (w[own] ** 2).sum() * bits[own].var(axis=0, ddof=1).mean()
    return float(max(per_image.var(ddof=1) - flips, 0.0) / bits.shape[1])


def _unpaired(runs: dict[str, Runs]) -> float:
    """The images' part of the variance where it is not known which of them are right."""
    total = 0.0
    for own in runs.values():
        p = float(np.mean(list(own.values.values())))
        total += p * (1 - p) / own.images if own.images == own.images else 0.0
    return total


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
        network has all of the level's seeds: sparsity, difference, se, df, low, high, seed_se,
        image_se, n_level, n_dense, test_images, rho. The criterion AT_worst is there where every
        run of both has outcomes of attacks beyond RA's.

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
            row = dict(zip(["pretraining", "dataset", "fraction"], group, strict=True))
            row |= {"method": method, "rounds": rounds, "criterion": criterion}
            row |= {"difference": d.difference, "se": d.se, "df": d.df}
            row |= {"low": d.low(confidence), "high": d.high(confidence)}
            row |= {"seed_se": d.seed_se, "image_se": d.image_se, "rho": noise.rho}
            row |= {"n_level": len(level.values), "n_dense": len(dense.values)}
            rows.append(row | {"test_images": level.images})
    numbers = ["difference", "se", "df", "low", "high", "seed_se", "image_se", "rho"]
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
    rows = replicates(table)
    bits = _bits(table, outcomes or {})
    for group, own in rows.groupby(["pretraining", "dataset", "fraction"]):
        for criterion, (regime, metric) in (CRITERIA | STRONG).items():
            cells: dict[tuple[str, int], Runs] = {}
            regime_rows = own[own["regime"] == regime]
            for _, runs in regime_rows.groupby(["method", "rounds"]):
                method, rounds = str(runs["method"].iloc[0]), int(runs["rounds"].iloc[0])
                of_cell, seeds = bits[metric], [int(seed) for seed in runs["seed"]]
                keys = {seed: (*group, method, rounds, regime, seed) for seed in seeds}
                own_bits = {s: of_cell[key] for s, key in keys.items() if key in of_cell}
                if len(own_bits) < len(seeds):
                    own_bits = {}
                images = float(runs["test_images"].iloc[0])
                if own_bits:
                    images = len(own_bits[seeds[0]])
                if metric == "worst":
                    values = {s: float(right.mean()) for s, right in own_bits.items()}
                else:
                    pairs = zip(seeds, runs[metric], strict=True)
                    values = {s: float(value) for s, value in pairs if pd.notna(value)}
                if values:
                    cells[method, rounds] = Runs(values, own_bits, images)
            if cells:
                yield group, criterion, cells


def _bits(table: pd.DataFrame, outcomes: Outcomes) -> dict[str, dict[tuple, np.ndarray]]:
    """{metric: {(pretraining, dataset, fraction, method, rounds, regime, seed): (N,) in [0, 1]}}.

    Rows that share a seed are averaged, as their accuracies are.
    """
    found: dict[str, dict[tuple, list[np.ndarray]]] = {"SA": {}, "RA": {}, "worst": {}}
    if not outcomes:
        return {metric: {} for metric in found}
    for row in base_seeds(table).to_dict("records"):
        own = outcomes.get(row["id"], {})
        method = "dense" if row["rounds"] == 0 else row["method"]
        key = (row["pretraining"], row["dataset"], row["fraction"], method, row["rounds"])
        key = (*key, row["regime"], row["seed"])
        for metric in found:
            # worst says more than RA only where a further attack was tried
            if metric in own and (metric != "worst" or own.keys() > {"SA", "RA", "worst"}):
                found[metric].setdefault(key, []).append(own[metric])
    return {
        metric: {key: np.mean(values, axis=0) for key, values in by_key.items()}
        for metric, by_key in found.items()
    }


def bootstrap_bounds(
    level: np.ndarray,
    dense: np.ndarray,
    rng: np.random.Generator,
    draws: int = 1000,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """One-sided bounds of a difference by resampling seeds and images (Owen 2007, pigeonhole).

    It pools nothing over levels and is a check of `difference`, on the wide side where seeds are
    few.

    Args:
        level: (n_l, N) which images each run of the level has right.
        dense: (n_0, N) the same of dense.
        rng: of the draws.
        draws: how many.
        confidence: of each bound.

    Returns:
        The lower and the upper bound.
    """
    images = level.shape[1]
    found = np.empty(draws)
    for i in range(draws):
        count = np.bincount(rng.integers(images, size=images), minlength=images) / images
        of_level = level[rng.integers(len(level), size=len(level))].mean(0)
        of_dense = dense[rng.integers(len(dense), size=len(dense))].mean(0)
        found[i] = (of_level - of_dense) @ count
    low, high = np.quantile(found, [1 - confidence, confidence])
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
    means over training seeds, less the training seeds' share s_r^2 / n of it, estimates its own
    (Searle et al. 1992, section 3.6). The images' is binomial, sqrt(p (1 - p) / N).

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
    rows = []
    for (dataset, fraction), own in table.groupby(["dataset", "fraction"]):
        for criterion, (regime, metric) in CRITERIA.items():
            runs = own[(own["regime"] == regime) & own[metric].notna()]
            if runs.empty:
                continue
            base = {"dataset": dataset, "fraction": fraction, "criterion": criterion}
            for source, (sd, df) in _components(runs, metric).items():
                rows.append({**base, "source": source, "sd": sd, "df": df})
    return pd.DataFrame(rows, columns=["dataset", "fraction", "criterion", "source", "sd", "df"])


def _components(runs: pd.DataFrame, metric: str) -> dict[str, tuple[float, int]]:
    """{source: (standard deviation, degrees of freedom)} of one criterion."""
    cell = ["pretraining", "method", "rounds"]
    others = ["theta_seed", "mask_seed", "subset_seed"]
    by_cell = runs.groupby([*cell, *others])[metric].agg(["mean", "var", "size"])
    df = int((by_cell["size"] - 1).sum())
    training = (by_cell["var"] * (by_cell["size"] - 1)).sum() / df if df else np.nan
    found: dict[str, tuple[float, int]] = {}
    for column in others:
        fixed = [*cell, *(other for other in others if other != column)]
        groups = by_cell.groupby(fixed)
        own = groups.agg(var=("mean", "var"), count=("mean", "size"), size=("size", "mean"))
        own = own[own["count"] > 1]
        between = int((own["count"] - 1).sum())
        if between and df:
            excess = ((own["var"] - training / own["size"]) * (own["count"] - 1)).sum() / between
            found[SEED_COLUMNS[column]] = float(np.sqrt(max(excess, 0.0))), between
        else:
            found[SEED_COLUMNS[column]] = np.nan, 0
    found["training"] = float(np.sqrt(training)), df
    p, n = runs[metric].mean(), runs.get("test_images", pd.Series(np.nan, runs.index)).mean()
    found["images"] = float(np.sqrt(p * (1 - p) / n)), 0
    return found


def seeds_needed(
    levels: int,
    margins: Sequence[float],
    seed_sds: Sequence[float],
    image_ses: Sequence[float],
    power: float = 0.8,
) -> tuple[int, int] | None:
    """The fewest seeds with which a ticket truly equal to dense is called `matches` often enough.

    Its lower bounds must lie above minus the margin by all criteria at once, which are taken as
    independent. Dense is compared with every level, so it gets n sqrt(levels) seeds (Dunnett 1955).

    Args:
        levels: how many are compared with one dense network.
        margins: one for each criterion, in [0, 1].
        seed_sds: standard deviations of accuracies over seeds, one for each criterion.
        image_ses: the images' parts of the standard errors, one for each criterion.
        power: how often is often enough, in (0, 1).

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
        if passes.prod() >= power:
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
