"""The blocks of a parameter file.

Which masks, transfers, landscapes and attacks a study asks for, and how changed.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from dwlt_lib.config.datasets import Fraction01, Frozen, Name
from dwlt_lib.config.specs import (
    Arch,
    Change,
    Method,
    Natural,
    Pictures,
    Positive,
    Pretraining,
    RegimeName,
)

DENSE = 0  # rounds of the unpruned network
Rounds = Annotated[int, Field(ge=DENSE, le=60)]


class Override(Frozen):
    """A change for the transfers it names; what is left out matches everything. Later ones win."""

    dataset: Name | None = None
    regime: RegimeName | None = None
    fraction: Fraction01 | None = None
    recipe: Change


class Masks(Frozen):
    """Masks: every combination of the lists, with the rounds that lead to the deepest."""

    pretraining: tuple[Pretraining, ...]
    method: tuple[Method, ...]
    rounds: tuple[Rounds, ...]

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
    fraction: tuple[Fraction01, ...] = (1.0,)
    regime: tuple[RegimeName, ...] = ("ST", "AT")
    seeds: tuple[Natural, ...]


class Landscapes(Grid):
    """Surfaces and trajectories of transferred tickets, on clean or attacked test images."""

    regime: tuple[RegimeName, ...] = ("AT",)
    images: tuple[Pictures, ...] = ("clean", "attacked")


class TransferAttacks(Grid):
    """Tickets to be attacked through the study's surrogate."""

    regime: tuple[RegimeName, ...] = ("AT",)


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
    """points x points over [-span, span] in units of the filters' norms, on the first `count` test
    images.
    """

    points: Annotated[int, Field(ge=3, le=501)] = 51
    span: Annotated[float, Field(gt=0)] = 1.0
    count: Positive = 1000
    seed: Natural = 0


class Surrogate(Frozen):
    """The unseen robust model.

    Adversarially trained from scratch downstream, another architecture and seed.
    """

    arch: Arch = "resnet18_32"
    seed: Natural = 1000
    recipe: Change = Change()
