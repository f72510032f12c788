"""A parameter file as a model: the study, its settings and the blocks that ask for records."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dwlt_lib.config.datasets import CATALOGUE, DataSet, Fraction01, Frozen, Name
from dwlt_lib.config.recipes import (
    BatchNormMode,
    Positive,
    Precision,
    Regime,
    StrongAttacks,
    TrainingOverrides,
)
from dwlt_lib.config.specs import (
    CONTROLS,
    PRUNE_FRACTION,
    SCORED,
    Arch,
    Method,
    Natural,
    Pictures,
    Pretraining,
    WeightsFile,
)

Preset = Literal["as_paper", "as_code"]
DENSE = 0  # rounds of the unpruned network
Rounds = Annotated[int, Field(ge=DENSE, le=60)]


class TransferOverride(Frozen):
    """A change for the transfers it names; what is left out matches everything. Later ones win."""

    dataset: Name | None = None
    """Only transfers to this data set."""
    regime: Regime | None = None
    """Only transfers by this regime."""
    fraction: Fraction01 | None = None
    """Only transfers with this share of the training data."""
    recipe: TrainingOverrides
    """The settings to change there."""

    def changes(self, dataset: str, regime: Regime, fraction: float) -> bool:
        """Whether it is about the transfers of a curve.

        Args:
            dataset: the downstream data set.
            regime: how tickets are trained there.
            fraction: share of its training images.

        Returns:
            True if all that it names is theirs.
        """
        return (
            self.dataset in (None, dataset)
            and self.regime in (None, regime)
            and self.fraction in (None, fraction)
        )


class Masks(Frozen):
    """Masks: every combination of the lists, with the rounds that lead to the deepest."""

    pretraining: tuple[Pretraining, ...]
    """The theta_p that masks are drawn from: STD, FAT, AT."""
    method: tuple[Method, ...]
    """How masks are found: IMP-ST, IMP-AT, OMP, RP; two of every four weights kept (IMP-ST-2of4,
    OMP-2of4), whole channels pruned (IMP-ST-channel, OMP-channel); by a score of each weight at
    theta_p (SNIP, GraSP, SynFlow); by rewinding IMP-ST's learning rate, not its weights
    (IMP-ST-LR); and the controls:
    IMP-ST-shuffled (its mask shuffled within each layer, that is random pruning with its layer
    densities), IMP-ST-reinit (its mask on weights drawn anew), IMP-ST-transplant (its mask, found
    from theta_p of the next seed)."""
    rounds: tuple[Rounds, ...]
    """Levels of the ladder: after k rounds 1 - 0.8^k of the weights are pruned; 0 is the dense
    network."""
    theta_seeds: tuple[Natural, ...] | None = None
    """Seeds of pre-training, a theta_p each; left out: the study's `seed`."""
    mask_seeds: tuple[Natural, ...] | None = None
    """Seeds of masks, a mask each; left out: the study's `mask_seed`."""

    @field_validator("*")
    @classmethod
    def _nonempty_and_distinct(cls, value: tuple | None) -> tuple | None:
        if value is None:
            return None
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
    dense_seeds: tuple[Natural, ...] | None = None
    """Those of the dense network, with which every level is compared; left out: `seeds`."""
    subset_seeds: tuple[Natural, ...] | None = None
    """Seeds of subsets of the training data, a subset each; left out: the study's `subset_seed`."""


class Attacked(Grid):
    """Tickets to be attacked: through the study's surrogate, or by its strong attacks."""

    regime: tuple[Regime, ...] = ("AT",)
    """How the tickets were trained downstream."""


class Landscapes(Attacked):
    """Surfaces and trajectories of transferred tickets, on clean or attacked test images."""

    images: tuple[Pictures, ...] = ("clean", "attacked")
    """Test images that the loss is taken on: clean, or attacked by the evaluation's PGD."""


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


class Margins(Frozen):
    """How much worse than its dense network a ticket may be and still match it."""

    SA: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Of SA after ST and after AT, in [0,1]: 0.02 is two points."""
    RA: Annotated[float, Field(gt=0, lt=1)] = 0.03
    """Of RA after AT."""
    relative: bool = False
    """Whether margins are shares of what dense reaches above chance, for a hard task."""


class Study(Frozen):
    """A parameter file, resolved over its preset. Every field may be set in the file."""

    name: Name
    """Names the study's folder under outputs/studies, and the study in every command."""
    title: str = ""
    """The report's heading."""
    preset: Preset = "as_paper"
    """What all else stands on: the paper's text (as_paper) or its authors' scripts (as_code)."""
    arch: Arch
    """The network: resnet8, resnet20, resnet8x2_s2, resnet18, resnet50, resnet18_32 or resnet50_32
    (with a stem for images of 32 pixels), torchvision/NAME, timm/NAME or package.module:function,
    the last three perhaps with keyword arguments in parentheses."""
    source: Name
    """The data set of pre-training and of masks, of the catalogue or of `data:`."""
    seed: Natural = 0
    """Seed of pre-training: of the initialisation, which all theta_p share, and of training."""
    mask_seed: Natural = 0
    """Seed of masks: of the order of images in retraining, of random pruning's choice."""
    subset_seed: Natural = 0
    """Seed of the subsets of the training data."""
    subset_rule: Literal["stratified", "first_n"] = "stratified"
    """How subsets are drawn: equal shares of each class, nested (stratified), or the first
    images of the file (first_n), as in the authors' scripts."""
    margins: Margins = Margins()
    """What the verdict calls a match."""
    search: Literal["grid", "adaptive"] = "grid"
    """Whether the whole grid is made (grid), or only the levels that are expected to narrow the
    bounds of an extreme sparsity (adaptive)."""
    prune_fraction: Annotated[float, Field(gt=0, lt=1)] = PRUNE_FRACTION
    """The share of the kept weights that a round prunes (section 3)."""
    evaluation_steps: Positive = 20
    """Steps of the PGD that measures RA."""
    evaluation_restarts: Positive = 1
    """Random starts of that PGD; RA counts the worst of them, image by image."""
    precision: Precision = "fp32"
    """Number format of training, its attack and its update; bf16 is faster only on a processor
    or GPU that has it."""
    attack_bn: BatchNormMode = "train"
    """BatchNorm's statistics in the training attack: the batch's (train) or the running ones
    (eval, another algorithm)."""
    evaluation_precision: Precision = "fp32"
    """Number format of the attack on validation and test images; scores are always fp32."""
    ra: Literal["last", "any"] = "last"
    """RA of the attack's last iterate (last), or beside it RA_any, right after every step (any)."""
    deterministic: bool = True
    """A GPU uses kernels that repeat to the bit; false lets it choose faster ones."""
    pretraining: dict[Pretraining, TrainingOverrides] = {}
    """What changes in the recipe of each theta_p."""
    weights: dict[Pretraining, WeightsFile] = {}
    """Those theta_p that are not trained, but come from files."""
    retraining: dict[Literal["IMP-ST", "IMP-AT"], TrainingOverrides] = {}
    """What changes in the recipe after each round of IMP."""
    transfer: dict[Regime, TrainingOverrides] = {}
    """What changes in the recipe of each regime downstream."""
    overrides: tuple[TransferOverride, ...] = ()
    """Changes for some transfers only; later ones win, the preset's come first."""
    data: dict[Name, DataSet] = {}
    """Rows of data sets of your own, or changes to the catalogue's."""
    grid: tuple[Grid, ...] = ()
    """The tickets to transfer; the dense network of each is added by itself."""
    masks: tuple[Masks, ...] = ()
    """Masks to draw without transferring them."""
    landscape: Landscape = Landscape()
    """How surfaces and trajectories are computed."""
    landscapes: tuple[Landscapes, ...] = ()
    """Transferred tickets to draw surfaces and trajectories of."""
    surrogate: Surrogate = Surrogate()
    """The unseen robust model of the transfer attacks."""
    transfer_attacks: tuple[Attacked, ...] = ()
    """Transferred tickets to attack through the surrogate."""
    strong_attacks: StrongAttacks = StrongAttacks()
    """The attacks of the robustness records."""
    robustness: tuple[Attacked, ...] = ()
    """Transferred tickets to attack by the strong attacks."""
    keep_weights: bool = False
    """Every transfer keeps its weights, so that `dwlt attack` can attack any of them."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> Study:
        if not (self.ticket_blocks() or self.masks):
            raise ValueError(
                "nothing is asked for; want a block under grid, masks, landscapes,"
                " transfer_attacks or robustness"
            )
        return self

    def ticket_blocks(self) -> tuple[Grid, ...]:
        """The blocks that ask for transferred tickets.

        Returns:
            The blocks, those of the grid first.
        """
        return (*self.grid, *self.landscapes, *self.transfer_attacks, *self.robustness)

    def rows(self) -> list[DataSet]:
        """The data sets whose images the study may read.

        Returns:
            Their rows, each once; the source comes first, if theta_p is trained or masks are drawn
            by retraining or by scores on images.
        """
        blocks = self.ticket_blocks()
        every = (*blocks, *self.masks)
        trained = {p for block in every for p in block.pretraining} - self.weights.keys()
        looks = any(
            method in SCORED
            or (method.startswith(tuple(self.retraining)) and max(block.rounds) > 1)
            for block in every
            for method in block.method
        )
        names = [self.source] if trained or looks else []
        names += [name for block in blocks for name in block.dataset]
        return [dataset(self, name) for name in dict.fromkeys(names)]


def dataset(study: Study, name: str) -> DataSet:
    """The row of a data set: the study's own, or the catalogue's.

    Args:
        study: the study.
        name: of the data set.

    Returns:
        The row.

    Raises:
        ValueError: one line: neither has one of that name.
    """
    if name in study.data:
        return study.data[name]
    if name not in CATALOGUE:
        known = ", ".join(sorted({*CATALOGUE, *study.data}))
        raise ValueError(
            f"data set {name!r} is unknown; want one of {known}, or describe it under data:"
        )
    return CATALOGUE[name]


def found_by(method: Method) -> Method:
    """The method that finds the masks of a method.

    Args:
        method: as tables have it.

    Returns:
        IMP-ST for the controls, else the method itself.
    """
    return "IMP-ST" if method in CONTROLS else method


def records_asked_for(block: Masks) -> int:
    """How many masks and tickets a block asks for at most, ladders and dense networks among them.

    By arithmetic: no description is built, however many there would be.

    Args:
        block: of a study.

    Returns:
        A bound: what blocks share is counted in each.
    """
    lists = {name: len(values) for name, values in block if values and isinstance(values, tuple)}
    lists["rounds"] = max(block.rounds) + 1
    seeds = lists.pop("seeds", 1) + lists.pop("dense_seeds", 0)
    return seeds * prod(lists.values())
