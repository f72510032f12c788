"""A study with `search: adaptive`: which of its grid's records are asked for now, and why.

Nothing about a search is stored: it is followed anew from the records, which repeat to the bit, so
a run that was killed goes on with the same choices. A step asks for whole sets of seeds, and no
other records count, so the order in which machines finish changes nothing either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pandas as pd

from dwlt_lib.analysis import search, simulated_searches
from dwlt_lib.analysis.noninferiority import (
    FALLS_SHORT,
    SEARCHED,
    chances_of,
    margin_of,
    noninferiority,
)
from dwlt_lib.analysis.power import ASSUMED_SD
from dwlt_lib.analysis.search import Curve, Tried
from dwlt_lib.analysis.statistics import CRITERIA
from dwlt_lib.analysis.tables import TASK
from dwlt_lib.config.planning import plan, transfer
from dwlt_lib.config.recipes import Regime
from dwlt_lib.config.specs import (
    Method,
    Spec,
    TransferSpec,
    record_id,
    sparsity_of_level,
    with_upstream,
)
from dwlt_lib.config.studies import DENSE, Grid, Study
from dwlt_lib.execution.costs import cost
from dwlt_lib.records import store

REGIMES: tuple[Regime, ...] = ("ST", "AT")
"""Those of the three criteria, the cheaper first."""


@dataclass(frozen=True)
class Choice:
    """A level that the search asked for."""

    pretraining: str
    """theta_p."""
    method: str
    """How masks are found."""
    dataset: str
    """The downstream data set."""
    fraction: float
    """Share of its training data, in (0, 1]."""
    rounds: int
    """The level; 0 is the dense network."""
    narrowing: float
    """Levels by which it was expected to narrow the certified bounds; NaN for dense."""
    outcome: str = ""
    """What came out, of `noninferiority`, by which criterion; "" while it is being made."""


@dataclass(frozen=True)
class Search:
    """How far a search has come."""

    study: Study
    """The study, whose grid is what was asked for so far."""
    choices: tuple[Choice, ...]
    """In the order in which they were made, task by task."""
    is_over: bool
    """Whether nothing more will be asked for, once all that was is there."""


@dataclass(frozen=True)
class _Task:
    """One theta_p, data set and fraction: all curves that are compared with one dense network."""

    key: tuple
    """(pretraining, dataset, fraction)."""
    dense_seeds: list[int] = field(default_factory=list)
    levels: dict[Method, dict[int, list[int]]] = field(default_factory=dict)
    """The seeds of each level of each method."""

    def block(self, method: Method, rounds: int, regime: Regime, seeds: Sequence[int]) -> Grid:
        """A block of a grid that asks for one set of runs, and for dense."""
        pretraining, dataset, fraction = self.key
        return Grid(
            pretraining=(pretraining,),
            method=(method,),
            dataset=(dataset,),
            fraction=(fraction,),
            regime=(regime,),
            rounds=(rounds,),
            seeds=tuple(seeds),
            dense_seeds=tuple(self.dense_seeds),
        )


def asked(study: Study) -> Search:
    """What is asked for of a study now: with `search: grid` all of it.

    Args:
        study: the study.

    Returns:
        As `follow`, from the records that were made here.
    """
    if study.search == "grid":
        return Search(study, (), True)
    return follow(study, store.table("transfer", ids=plan(study), damaged=[]))


def follow(study: Study, table: pd.DataFrame) -> Search:
    """Follow a search from records, as far as they go.

    Args:
        study: the study, whatever its `search`: of a whole grid this is what a search would have
            asked for.
        table: the transfers that are there, as `records.table` gives them.

    Returns:
        What is asked for, all that was asked for before included, and why.
    """
    whole = [block for block in study.grid if not _is_searched(block)]
    searched = [block for block in study.grid if _is_searched(block)]
    blocks, choices, is_over = [*whole], [], True
    for task in _tasks(searched):
        own, made, ended = _follow_task(study, task, table)
        blocks += own
        choices += made
        is_over = is_over and ended
    return Search(study.model_copy(update={"grid": tuple(blocks)}), tuple(choices), is_over)


def _is_searched(block: Grid) -> bool:
    """Whether a block is a curve to search; one about other seeds is asked for as it stands."""
    others = (block.theta_seeds, block.mask_seeds, block.subset_seeds)
    return all(len(seeds or ()) <= 1 for seeds in others) and set(block.regime) >= set(REGIMES)


def _tasks(blocks: Iterable[Grid]) -> list[_Task]:
    tasks: dict[tuple, _Task] = {}
    for block in blocks:
        for key in product(block.pretraining, block.dataset, block.fraction):
            task = tasks.setdefault(key, _Task(key))
            seeds = block.dense_seeds or block.seeds
            task.dense_seeds[:] = sorted({*task.dense_seeds, *seeds})
            for method, rounds in product(block.method, block.rounds):
                if rounds != DENSE:
                    own = task.levels.setdefault(method, {}).setdefault(rounds, [])
                    own[:] = sorted({*own, *block.seeds})
    return list(tasks.values())


def _follow_task(
    study: Study, task: _Task, table: pd.DataFrame
) -> tuple[list[Grid], list[Choice], bool]:
    """The blocks that a task asks for, the choices so far, and whether it is over."""
    there, asked = set(table["id"]), dict[str, Spec]()
    blocks, choices = list[Grid](), list[Choice]()

    def ask(method: Method, rounds: int, regime: Regime, seeds: Sequence[int]) -> bool:
        """Asks for a set of runs; whether all of them are there."""
        specs = _runs(study, task.key, method, rounds, regime, seeds)
        asked.update(with_upstream(specs))
        blocks.append(task.block(method, rounds, regime, seeds))
        return all(record_id(spec) in there for spec in specs)

    def judge() -> dict[tuple[str, int], dict]:
        own = table[table["id"].isin(asked.keys())]
        levels = noninferiority(own, store.outcomes_of(own), study.margins, SEARCHED)
        return {(row["method"], row["rounds"]): row for row in levels.to_dict("records")}

    def choose(method: Method, rounds: int, narrowing: float) -> Choice:
        pretraining, dataset, fraction = task.key
        return Choice(pretraining, method, dataset, fraction, rounds, narrowing)

    choices.append(choose("IMP-ST", DENSE, np.nan))
    if not all([ask("IMP-ST", DENSE, regime, task.dense_seeds) for regime in REGIMES]):
        return blocks, choices, False
    tried: dict[Method, dict[int, Tried]] = {method: {} for method in task.levels}
    while True:
        batch = {}
        for method, levels in task.levels.items():
            curve = _curve(study, task, method, tried[method], table, asked.keys())
            costs = {
                rounds: _cost(study, task.key, method, rounds, levels[rounds], asked)
                for rounds in levels
                if rounds not in tried[method]
            }
            if (found := search.next_level(curve, costs)) is not None:
                batch[method] = found
        if not batch:
            return blocks, choices, True
        at = {method: len(choices) + place for place, method in enumerate(batch)}
        choices += [choose(method, *found) for method, found in batch.items()]
        decided: dict[Method, dict] = {}
        for regime in REGIMES:
            left = [method for method in batch if method not in decided]
            done = [
                ask(method, batch[method][0], regime, task.levels[method][batch[method][0]])
                for method in left
            ]
            if not all(done):
                return blocks, choices, False
            verdicts = judge()
            for method in left:
                level = verdicts[method, batch[method][0]]
                if regime == REGIMES[-1] or level["status"] == FALLS_SHORT:
                    decided[method] = level
        for method, level in decided.items():
            tried[method][batch[method][0]] = _tried(level)
            outcome = _outcome(level)
            choices[at[method]] = Choice(**{**vars(choices[at[method]]), "outcome": outcome})


def _runs(
    study: Study, key: tuple, method: Method, rounds: int, regime: Regime, seeds: Iterable[int]
) -> list[TransferSpec]:
    pretraining, dataset, fraction = key
    return [
        transfer(study, pretraining, method, dataset, fraction, regime, rounds, seed)
        for seed in seeds
    ]


def _cost(  # noqa: PLR0913  what a level is, and what was asked for before
    study: Study,
    key: tuple,
    method: Method,
    rounds: int,
    seeds: Iterable[int],
    asked: Mapping[str, Spec],
) -> float:
    """What a level takes beyond what was asked for before, masks of former rounds included."""
    runs = [run for regime in REGIMES for run in _runs(study, key, method, rounds, regime, seeds)]
    return sum(cost(spec) for id, spec in with_upstream(runs).items() if id not in asked)


def _curve(  # noqa: PLR0913  what is known of a curve
    study: Study,
    task: _Task,
    method: Method,
    tried: Mapping[int, Tried],
    table: pd.DataFrame,
    asked: Collection[str],
) -> Curve:
    """A curve with the errors that its levels have had, or those that dense lets expect."""
    levels = task.levels[method]
    n, n_dense = min(map(len, levels.values())), len(task.dense_seeds)
    own = table[table["id"].isin(asked) & (table["rounds"] == DENSE)]
    chance = chances_of(own).get(task.key[TASK.index("dataset")], 0.0)
    margins, errors = [], []
    for place, (regime, metric) in enumerate(CRITERIA.values()):
        values = own.loc[own["regime"] == regime, metric].to_numpy(float)
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else ASSUMED_SD
        known = [one.errors[place] for one in tried.values() if one.errors[place] > 0]
        errors.append(
            float(np.median(known)) if known else sd * np.sqrt(1 / n + 1 / n_dense) or ASSUMED_SD
        )
        margins.append(margin_of(study.margins, metric, float(values.mean()), chance))
    df = max(n_dense - 1 + (len(tried) + 1) * (n - 1), 1)
    return Curve(sorted(levels), margins, errors, df, tried)


def _tried(level: Mapping) -> Tried:
    return Tried(
        level["status"],
        tuple(level[f"{name}_difference"] for name in CRITERIA),
        tuple(level[f"{name}_se"] for name in CRITERIA),
    )


def _outcome(level: Mapping) -> str:
    """A level's status, and where it falls short by which criteria."""
    short = [name for name in CRITERIA if level[f"{name}_status"] == FALLS_SHORT]
    by = f" by {', '.join(short)}" if short else ""
    return f"{level['status']}{by}"


def steps(found: Search) -> Iterator[str]:
    """A search in words.

    Args:
        found: of `follow`.

    Yields:
        A line per choice: what was asked for, why, and what came out.
    """
    for one in found.choices:
        sparsity = sparsity_of_level(one.method, one.rounds, found.study.prune_fraction)
        task = f"{one.pretraining} on {100 * one.fraction:g} % of {one.dataset}"
        what = f"{one.method} at {100 * sparsity:.1f} %" if one.rounds else "dense"
        why = "every level is compared with it"
        if one.rounds:
            why = f"expected to narrow the bounds by {one.narrowing:.1f} levels"
        outcome = one.outcome or ("there" if not one.rounds else "not known yet")
        yield f"{task}: {what}; {why}; {outcome}"


def share_of_grid(found: Search, study: Study) -> float:
    """What a search has asked for of what its whole grid takes.

    Args:
        found: of `follow`.
        study: the study with its whole grid.

    Returns:
        A share of the arithmetic of masks and transfers, in [0, 1].
    """
    own, whole = (
        sum(cost(spec) for spec in plan(one).values() if spec.kind in ("mask", "transfer"))
        for one in (found.study, study)
    )
    return own / whole


def predicted_shares(study: Study, rng: np.random.Generator, searches: int = 20) -> list[float]:
    """What searches of a study are predicted to ask for of what its whole grid takes.

    Accuracies are taken to fall as the search expects them to, with the noise that `power` assumes
    where nothing is known.

    Args:
        study: the study.
        rng: of all draws.
        searches: how many are simulated.

    Returns:
        A share of the arithmetic of masks and transfers for each, in [0, 1].
    """
    shares = []
    for _ in range(searches):
        blocks = [block for block in study.grid if not _is_searched(block)]
        for task in _tasks([block for block in study.grid if _is_searched(block)]):
            blocks += [task.block("IMP-ST", DENSE, regime, task.dense_seeds) for regime in REGIMES]
            for method, levels in task.levels.items():
                n = min(map(len, levels.values()))
                error = ASSUMED_SD * np.sqrt(1 / n + 1 / len(task.dense_seeds))
                margins = [
                    margin_of(study.margins, metric, 1, 0) for _, metric in CRITERIA.values()
                ]
                df = max(len(levels) * (n - 1) + len(task.dense_seeds) - 1, 1)
                curve = Curve(sorted(levels), margins, [error] * len(CRITERIA), df)
                truth = rng.choice(search.plausible_curves(max(levels)))
                measured = truth[:, np.asarray(curve.rounds) - 1]
                measured = measured + error * rng.normal(size=measured.shape)
                blocks += [
                    task.block(method, rounds, regime, levels[rounds])
                    for rounds in simulated_searches.searched(curve, measured).tried
                    for regime in REGIMES
                ]
        asked_for = study.model_copy(update={"grid": tuple(blocks)})
        shares.append(share_of_grid(Search(asked_for, (), True), study))
    return sorted(shares)
