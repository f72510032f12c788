"""How a network is attacked and how it is trained: one class for each.

`attacks.perturb` takes a `PGD`, `APGD` or `Square`, `training.fit` a `TrainingConfig`, as they are
described here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, create_model

from dwlt_lib.config.datasets import Frozen

Regime = Literal["ST", "FAT", "AT"]
Precision = Literal["fp32", "bf16"]
BatchNormMode = Literal["train", "eval"]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]
AtLeastTwo = Annotated[int, Field(ge=2, le=1_000_000)]  # images that BatchNorm can train on


@dataclass(frozen=True)
class PGD:
    """delta <- clip(delta + alpha * sign(grad L), -eps, eps), `steps` times (paper, equation 2).

    One step is FGSM. For example `PGD(eps=8 / 255, alpha=2 / 255, steps=20)` measures RA.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    eps: float
    """Radius of the l-infinity ball, in [0,1] pixels of the image that the network sees."""
    alpha: float
    """Length of a step, in [0,1] pixels."""
    steps: int
    """Number of gradient steps; 0 leaves the start as it is."""
    random_start: bool = True
    """Whether delta starts uniformly random in the ball, or at 0."""
    restarts: int = 1
    """Number of starts for each image, of which its worst outcome counts."""
    precision: Precision = "fp32"
    """Number format that the gradient is computed in."""
    bn: BatchNormMode = "train"
    """BatchNorm's statistics during the attack on a model in train mode: the batch's (train, as in
    the authors' code) or the running ones (eval, another algorithm)."""

    def __post_init__(self) -> None:
        """Refuses values out of their range."""
        _check(self, eps=(0, 1), alpha=(0, 1), steps=(0, inf), restarts=(1, inf))
        if self.precision not in ("fp32", "bf16") or self.bn not in ("train", "eval"):
            raise ValueError(
                f"precision={self.precision!r}, bn={self.bn!r}: want fp32 or bf16, train or eval"
            )

    @property
    def passes(self) -> int:
        """Forward passes of one image: a gradient is worth two; several starts are scored."""
        return self.restarts * (2 * self.steps + (self.restarts > 1))


@dataclass(frozen=True)
class APGD:
    """PGD that finds its step by itself, with momentum (Croce & Hein, ICML 2020, algorithm 1).

    `APGD(eps=8 / 255)` is APGD-CE and `APGD(eps=8 / 255, loss="DLR", targets=9)` APGD-T, as in
    AutoAttack. An image that one start or target has fooled is attacked no further.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    eps: float
    """Radius of the l-infinity ball, in [0,1] pixels of the image that the network sees."""
    loss: Literal["CE", "DLR"] = "CE"
    """What it maximises: the cross-entropy, or the difference of logits ratio, which does not
    change when all logits are scaled. Where a network has too few classes for the ratio (it takes
    3, with targets 4) the difference of logits alone."""
    steps: int = 100
    """Number of gradient steps from each start."""
    targets: int = 0
    """Number of wrong classes, the likeliest on the clean image first, that DLR is aimed at one
    after the other (as many as there are); 0: at none."""
    restarts: int = 1
    """Number of random starts for each image (and target), of which its worst outcome counts."""

    def __post_init__(self) -> None:
        """Refuses values out of their range."""
        _check(self, eps=(0, 1), steps=(1, inf), targets=(0, inf), restarts=(1, inf))
        if self.loss not in ("CE", "DLR") or (self.targets and self.loss == "CE"):
            raise ValueError(
                f"loss={self.loss!r}, targets={self.targets}: want CE without targets, or DLR"
            )

    @property
    def passes(self) -> int:
        """Forward passes of one image that is never fooled, a gradient being worth two."""
        return 1 + 2 * (self.steps + 1) * self.restarts * max(1, self.targets)


@dataclass(frozen=True)
class Square:
    """Random search by squares, without gradients (Andriushchenko et al., ECCV 2020).

    It asks for the network's logits alone, so that no masked gradient misleads it.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    eps: float
    """Radius of the l-infinity ball, in [0,1] pixels of the image that the network sees."""
    queries: int = 5000
    """Number of forward passes for each image that is not fooled before."""

    def __post_init__(self) -> None:
        """Refuses values out of their range."""
        _check(self, eps=(0, 1), queries=(1, inf))

    @property
    def passes(self) -> int:
        """Forward passes of one image that is never fooled."""
        return self.queries


@dataclass(frozen=True)
class AutoAttack:
    """The standard version of AutoAttack by its package (Croce & Hein, ICML 2020).

    Its steps, queries and restarts are fixed, so that accuracies compare with published ones.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    eps: float
    """Radius of the l-infinity ball, in [0,1] pixels of the image that the network sees."""

    def __post_init__(self) -> None:
        """Refuses values out of their range."""
        _check(self, eps=(0, 1))

    @property
    def passes(self) -> int:
        """Forward passes of one image that is never fooled, a gradient being worth two."""
        apgd, fab, targets, square = 2 * 100, 3 * 100, 9, 5000
        return apgd + targets * (apgd + fab) + square


Attack = PGD | APGD | Square | AutoAttack


def _check(attack: Attack, **ranges: tuple[float, float]) -> None:
    """Raises ValueError if a setting is out of its range."""
    for name, (least, most) in ranges.items():
        value = getattr(attack, name)
        if not least <= value <= most:
            hint = ", in [0,1] pixels (8/255 = 0.0314, not 8)" if most == 1 else ""
            raise ValueError(f"{name}={value}: want {least} to {most}{hint}")


class TrainingConfig(Frozen):
    """How to train a network: by SGD, on images as they are (ST) or attacked (FAT, AT)."""

    epochs: Positive
    """Passes over the training images."""
    batch: AtLeastTwo
    """Images per step of the optimiser (SGD)."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate at the start; for one_cycle, at the peak."""
    schedule: Literal["constant", "steps", "cosine", "one_cycle"]
    """How the learning rate moves: constant, steps (a tenth at each milestone), cosine to 0 (by
    epoch), or one_cycle (linear up for a quarter of training, then linear down to 0)."""
    milestones: tuple[Positive, ...] = ()
    """After which epochs `steps` divides the rate by ten."""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """Momentum of SGD, in [0, 1)."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Weight decay of SGD; pruned weights stay exactly 0."""
    validation: Literal["tenth", "held_5000", "test", "none"] = "tenth"
    """Images held out for selection: a tenth of the budget, the last 5,000 training images, the
    test images (which flatters the result), or none."""
    attack: PGD | None = None
    """What training faces; none for ST."""
    precision: Precision = "fp32"
    """Number format of the update's forward and backward pass; the attack has its own."""
    deterministic: bool = True
    """A GPU uses kernels that repeat to the bit; false lets it choose faster ones."""
    # the second name is the one that descriptions of older records have
    micro_batch_size: AtLeastTwo | None = Field(
        default=None, validation_alias=AliasChoices("micro_batch_size", "at_once")
    )
    """How many images of a batch go through the network together; left out: all. The gradients of
    these equal micro-batches are summed, and each has BatchNorm statistics of its own, as on each
    of several GPUs, which can share them under torchrun."""
    selection: Literal["last", "best"] = "best"
    """Which epoch counts: the last, or the best by validation SA (ST) or RA (FAT, AT), ties to the
    earlier (the paper's early stopping). Left out in a study: last where the rate ends at 0, but
    best for FAT."""
    validate_ra_from: Positive | None = None
    """RA is validated after this epoch and every later one; left out: the second half and every
    tenth before (FAT: all)."""
    linear_probe_epochs: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Epochs before all others in which the head alone is trained, at the constant rate lr, on the
    regime's own images; the backbone and its BatchNorm statistics stay as they are (RoLI, Hua et
    al., CVPR 2024). They count in addition to `epochs`."""
    eps_warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of `epochs` over which the training attack's eps, and alpha with it, grows linearly
    from 0, by epoch (Epsilon-Scheduling, Ngnawe et al., arXiv 2509.23325); 0: eps from the
    start."""

    @property
    def all_epochs(self) -> int:
        """Passes over the training images in all: those of the head alone, and `epochs`."""
        return self.linear_probe_epochs + self.epochs

    def attack_at(self, epoch: int) -> PGD | None:
        """The attack that training faces in one epoch; the head alone is trained at full eps.

        Its eps and alpha are min(1, epoch / (eps_warmup * epochs)) of those of `attack`.

        Args:
            epoch: of `epochs`, from 0; negative while the head alone is trained.

        Returns:
            The attack; None for ST.
        """
        if self.attack is None or not 0 <= epoch < self.eps_warmup * self.epochs:
            return self.attack
        share = epoch / (self.eps_warmup * self.epochs)
        return replace(self.attack, eps=share * self.attack.eps, alpha=share * self.attack.alpha)

    @property
    def regime(self) -> Regime:
        """ST without an attack, FAT against one step, AT against several."""
        if self.attack is None:
            return "ST"
        return "FAT" if self.attack.steps == 1 else "AT"

    def evaluates_robustly_at(self, epoch: int) -> bool:
        """Whether validation RA is measured after this epoch; SA is measured after each.

        The authors' scripts have validate_ra_from 46 of 100 epochs on CIFAR, 1 of 80 on SVHN.
        Without it (ours), AT has RA in every epoch of the second half and in every tenth before,
        which makes 55 of 100, and FAT in each, so that a collapse is seen.

        Args:
            epoch: of `epochs`, from 1.

        Returns:
            The answer, whether or not there are validation images.
        """
        if self.validate_ra_from is not None:
            return epoch >= self.validate_ra_from
        return self.regime == "FAT" or 2 * epoch > self.epochs or epoch % 10 == 0


AttackName = Literal["PGD", "APGD-CE", "APGD-T", "Square", "AutoAttack"]


class StrongAttacks(Frozen):
    """How a ticket's robustness is measured beyond RA: several attacks of the evaluation's eps."""

    count: Positive = 1000
    """So many of the first test images are attacked."""
    attacks: tuple[AttackName, ...] = ("PGD", "APGD-CE", "APGD-T", "Square")
    """Which attacks; the worst case is over all of them and RA's own. Each faces all images, not
    only those that withstood the attacks before it, so that any two can be compared by image.
    AutoAttack is the whole of it by its package, the extra [attacks], with settings of its own."""
    pgd_steps: Positive = 50
    """Steps of PGD, of the evaluation's alpha."""
    pgd_restarts: Positive = 10
    """Random starts of PGD, of which the worst counts, image by image."""
    apgd_steps: Positive = 100
    """Steps of APGD-CE, and of APGD-T for each target."""
    apgd_targets: Positive = 9
    """Wrong classes that APGD-T aims at, the likeliest on the clean image first; at most all."""
    square_queries: Positive = 5000
    """Forward passes of Square."""
    eps_factors: tuple[Annotated[float, Field(ge=0, le=100)], ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    """Radii of the security curve, in the evaluation's eps; alpha grows with them."""
    curve_steps: tuple[Positive, ...] = (1, 2, 5, 10, 20, 50, 100)
    """Steps of PGD in the curve of RA over steps."""

    def by_name(self, evaluation: PGD) -> dict[str, Attack]:
        """The attacks by the names that outcomes and tables have, such as PGD-50x10.

        Args:
            evaluation: the adversary of RA, whose eps they have; PGD has its alpha and precision,
                too.

        Returns:
            The adversaries, in the order in which they are run.
        """
        eps, steps = evaluation.eps, self.apgd_steps
        pgd = replace(evaluation, steps=self.pgd_steps, restarts=self.pgd_restarts)
        every: dict[AttackName, tuple[str, Attack]] = {
            "PGD": (f"PGD-{self.pgd_steps}x{self.pgd_restarts}", pgd),
            "APGD-CE": ("APGD-CE", APGD(eps, steps=steps)),
            "APGD-T": ("APGD-T", APGD(eps, "DLR", steps, self.apgd_targets)),
            "Square": ("Square", Square(eps, self.square_queries)),
            "AutoAttack": ("AutoAttack", AutoAttack(eps)),
        }
        return dict(every[name] for name in self.attacks)

    def eps_curve(self, evaluation: PGD) -> list[PGD]:
        """RA's adversary at each of the `eps_factors`.

        Args:
            evaluation: the adversary of RA.

        Returns:
            The adversaries; eps and alpha are at most 1.
        """
        return [
            replace(evaluation, eps=min(1, f * evaluation.eps), alpha=min(1, f * evaluation.alpha))
            for f in self.eps_factors
        ]

    def steps_curve(self, evaluation: PGD) -> list[PGD]:
        """RA's adversary with each of the `curve_steps`.

        Args:
            evaluation: the adversary of RA.

        Returns:
            The adversaries.
        """
        return [replace(evaluation, steps=steps) for steps in self.curve_steps]

    def probes(self, evaluation: PGD) -> dict[str, PGD]:
        """What signs of masked gradients are looked for with, beside the attacks and curves.

        Args:
            evaluation: the adversary of RA.

        Returns:
            FGSM (one step of eps from the image itself), and grey: RA's steps at radius 0.5, where
            all images can be made the same grey, each long enough to cross the ball twice in 20.
        """
        fgsm = replace(evaluation, alpha=evaluation.eps, steps=1, random_start=False, restarts=1)
        return {"FGSM": fgsm, "grey": replace(evaluation, eps=0.5, alpha=0.1)}


def _optional_fields(model: type[Frozen], left_out: set[str]) -> type[Frozen]:
    """A class with the fields of `model`, all of which may be left out, but those named."""
    fields: dict[str, Any] = {
        name: (
            field.rebuild_annotation() | None,
            Field(
                default=None,
                description=field.description,
                validation_alias=field.validation_alias,
            ),
        )
        for name, field in model.model_fields.items()
        if name not in left_out
    }
    # fields are described already, and there is no class statement to read docstrings from
    without_source = {"use_attribute_docstrings": False}
    return create_model("OptionalFields", __base__=Frozen, __cls_kwargs__=without_source, **fields)


class TrainingOverrides(
    _optional_fields(TrainingConfig, left_out={"attack", "precision", "deterministic"}),
    use_attribute_docstrings=True,
):
    """Some settings of training; what is left out stays as it was."""

    steps: Positive | None = None
    """Steps of the training attack, PGD; FAT always has 1."""
    eps: Annotated[float, Field(ge=0, le=1)] | None = None
    """Radius of the training attack, in [0,1] pixels; left out: the data set's."""
    alpha: Annotated[float, Field(gt=0, le=1)] | None = None
    """Step of the training attack, in [0,1] pixels; left out: the data set's, for FAT 1.25 eps."""
