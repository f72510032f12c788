"""The blocks of a parameter file.

Which masks, transfers, landscapes and attacks a study asks for, and how changed.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from dwlt_lib.config.datasets import Fraction01, Frozen, Name
from dwlt_lib.config.recipes import Positive, Regime, TrainingOverrides
from dwlt_lib.config.specs import (
    Arch,
    Method,
    Natural,
    Pictures,
    Pretraining,
)

DENSE = 0  # rounds of the unpruned network
Rounds = Annotated[int, Field(ge=DENSE, le=60)]


class Override(Frozen):
    """A change for the transfers it names; what is left out matches everything. Later ones win."""

    dataset: Name | None = None
    """Only transfers to this data set."""
    regime: Regime | None = None
    """Only transfers by this regime."""
    fraction: Fraction01 | None = None
    """Only transfers with this share of the training data."""
    recipe: TrainingOverrides
    """The settings to change there."""


class Masks(Frozen):
    """Masks: every combination of the lists, with the rounds that lead to the deepest."""

    pretraining: tuple[Pretraining, ...]
    """The theta_p that masks are drawn from: STD, FAT, AT."""
    method: tuple[Method, ...]
    """How masks are found: IMP-ST, IMP-AT, OMP, RP."""
    rounds: tuple[Rounds, ...]
    """Levels of the ladder: after k rounds 1 - 0.8^k of the weights are pruned; 0 is the dense
    network."""

    @field_validator("*")
    @classmethod
    def _nonempty_and_distinct(cls, value: tuple) -> tuple:
        if len(value) == 0:
            raise ValueError("want at least one entry, or leave the whole block out")
        if len(set(value)) != len(value):
            raise ValueError(f"{list(value)} names something twice; name each once")
        return value


class Grid(Masks):
    """Transfers: every combination of the lists.

    The dense network (rounds 0) of each is added by itself.
    """

    dataset: tuple[Name, ...]
    """Downstream data sets, of the catalogue or of `data:`."""
    fraction: tuple[Fraction01, ...] = (1.0,)
    """Shares of the training data, in (0, 1]."""
    regime: tuple[Regime, ...] = ("ST", "AT")
    """How tickets are trained downstream: ST, FAT, AT."""
    seeds: tuple[Natural, ...]
    """One transfer for each: its head, the order of its images, its attacks' starts."""


class Landscapes(Grid):
    """Surfaces and trajectories of transferred tickets, on clean or attacked test images."""

    regime: tuple[Regime, ...] = ("AT",)
    """How the tickets were trained downstream."""
    images: tuple[Pictures, ...] = ("clean", "attacked")
    """Test images that the loss is taken on: clean, or attacked by the evaluation's PGD."""


class TransferAttacks(Grid):
    """Tickets to be attacked through the study's surrogate."""

    regime: tuple[Regime, ...] = ("AT",)
    """How the tickets were trained downstream."""


def asked(block: Masks) -> int:
    """How many records a block asks for at most, ladders and dense networks among them, by
    arithmetic: nothing of it is written out."""
    found = len(block.pretraining) * len(block.method)
    ladders = found * max(block.rounds)
    if not isinstance(block, Grid):
        return ladders
    tickets = found * (len(block.rounds) + 1)
    for values in (block.dataset, block.fraction, block.regime, block.seeds):
        tickets *= len(values)
    if isinstance(block, Landscapes):
        return ladders + tickets * (1 + 2 * len(block.images))
    return ladders + tickets * (2 if isinstance(block, TransferAttacks) else 1)


class Landscape(Frozen):
    """The grid of a surface: points x points over [-span, span]."""

    points: Annotated[int, Field(ge=3, le=501)] = 51
    """Points along each of the two axes; odd, so that the ticket itself is one."""
    span: Annotated[float, Field(gt=0)] = 1.0
    """The plane reaches from -span to span, in units of the filters' norms."""
    count: Positive = 1000
    """The loss is the mean over so many of the first test images."""
    seed: Natural = 0
    """Seed of the two random directions."""


class Surrogate(Frozen):
    """The unseen robust model.

    Adversarially trained from scratch downstream, another architecture and seed.
    """

    arch: Arch = "resnet18_32"
    """Its architecture, which must not be the tickets'."""
    seed: Natural = 1000
    """Seed of its initialisation and training."""
    recipe: TrainingOverrides = TrainingOverrides()
    """What changes in the recipe of AT pre-training."""
