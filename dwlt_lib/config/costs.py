"""What a record costs: the arithmetic to make it, by sort, in GMAC.

A GMAC is a thousand million multiply-accumulates.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from dwlt_lib.config.datasets import DataSet
from dwlt_lib.config.recipes import PGD, Attack, TrainingConfig
from dwlt_lib.config.specs import (
    AttackSpec,
    ImportedSpec,
    MaskSpec,
    PretrainingSpec,
    RobustnessSpec,
    Spec,
    TransferSpec,
    retrains,
)

ENOUGH = 100  # with fewer validation images there is no selection: the last epoch counts

# forward cost of one image: GMAC at a side in pixels
GMAC = {
    "resnet8": (0.0125, 32),
    "resnet20": (0.041, 32),
    "resnet8x2_s2": (0.0123, 32),
    "resnet18_32": (0.555, 32),
    "resnet50_32": (1.298, 32),
    "resnet18": (1.814, 224),
    "resnet50": (4.087, 224),
}


class Work(NamedTuple):
    """A sort of arithmetic, which has a speed of its own."""

    task: Literal["at", "st", "pgd20", "surface"]
    """Adversarial or standard training steps, an attack in evaluation and its score, or forward
    passes alone."""
    arch: str
    """The network."""
    size: int
    """Side of the images in pixels."""
    precision: str = "fp32"
    """Number format of the gradients."""
    bn: str = "eval"
    """Mode of BatchNorm during an attack."""


def cost(spec: Spec) -> float:
    """What it takes to make one record alone: all its work.

    Args:
        spec: its description.

    Returns:
        GMAC.
    """
    return sum(work(spec).values())


def work(spec: Spec) -> dict[Work, float]:
    """What it takes to make one record alone; the most, where training may stop early.

    A backward pass to weights and input costs two forward passes, to the input alone one: a PGD-10
    training step so costs 23 forward passes an image, the score under PGD-20 41. Decoding and
    augmenting images is not counted.

    Args:
        spec: its description.

    Returns:
        GMAC by sort; empty where nothing is trained or tested.
    """
    if isinstance(spec, ImportedSpec):
        return {}
    if isinstance(spec, PretrainingSpec):
        return _sum(
            _training(spec.arch, spec.data, spec.recipe, 1.0, spec.evaluation),
            _testing(spec.arch, spec.data, spec.recipe, spec.evaluation, spec.ra),
        )
    if isinstance(spec, MaskSpec):
        if spec.retrain is None or not retrains(spec):
            return {}
        arch, data = spec.theta.arch, spec.theta.data
        return _sum(
            _training(arch, data, spec.retrain, 1.0, None), _passes(arch, data, data.test_images)
        )
    if isinstance(spec, TransferSpec):
        arch = spec.theta.arch
        return _sum(
            _training(arch, spec.data, spec.recipe, spec.fraction, spec.evaluation),
            _testing(arch, spec.data, spec.recipe, spec.evaluation, spec.ra),
        )
    arch, data, attack = spec.transfer.theta.arch, spec.transfer.data, spec.transfer.evaluation
    if isinstance(spec, AttackSpec):
        return _sum(
            _attacking(spec.surrogate.arch, data, data.test_images, attack),
            _passes(arch, data, data.test_images),
        )
    count = min(spec.count, data.test_images)
    if isinstance(spec, RobustnessSpec):
        curves = [*spec.eps_curve(attack), *spec.steps_curve(attack)]
        every = [*spec.by_name(attack).values(), *curves, *spec.probes(attack).values()]
        return _sum(*(_scoring(arch, data, count, one) for one in every))
    moved = _attacking(arch, data, count, attack) if spec.images == "attacked" else {}
    return _sum(_passes(arch, data, spec.points**2 * count), moved)


def forward(arch: str, size: int) -> float:
    """What a network's forward pass takes on one image.

    Args:
        arch: the network, a key of `GMAC`.
        size: side of the image in pixels.

    Returns:
        GMAC.
    """
    gmac, side = GMAC[arch]
    return gmac * (size / side) ** 2


def split(data: DataSet, recipe: TrainingConfig, fraction: float) -> tuple[float, float]:
    """How many images are trained on and how many validate, as records are made.

    Args:
        data: the data set.
        recipe: its `validation` says which images are held out.
        fraction: share of the training images that may be used, in (0, 1].

    Returns:
        (training images, validation images), not rounded.
    """
    if recipe.validation == "held_5000":
        return max(0, data.train_images - 5000) * fraction, 5000
    budget = data.train_images * fraction
    if recipe.validation == "test":
        return budget, data.test_images
    held = 0.1 * budget if recipe.validation == "tenth" and round(0.1 * budget) >= ENOUGH else 0.0
    return budget - held, held


def _sum(*parts: dict[Work, float]) -> dict[Work, float]:
    whole: dict[Work, float] = {}
    for part in parts:
        for key, gmac in part.items():
            whole[key] = whole.get(key, 0.0) + gmac
    return whole


def _training(
    arch: str, data: DataSet, recipe: TrainingConfig, fraction: float, eval_attack: PGD | None
) -> dict[Work, float]:
    """All epochs, and their validation.

    With validation images they end with SA and, where an attack is trained against, some with RA by
    `eval_attack`. While the head alone is trained nothing is validated, and a step is an attack on
    a network in eval mode and a forward pass; what the head's gradient costs is not counted.
    """
    images, held = split(data, recipe, fraction)
    attack, epochs = recipe.attack, recipe.epochs
    step = (
        Work("at", arch, data.size, recipe.precision, attack.bn)
        if attack
        else Work("st", arch, data.size, recipe.precision)
    )
    passes = 3 + 2 * (attack.steps if attack else 0)
    found = {step: epochs * images * passes * forward(arch, data.size)}
    if probed := recipe.linear_probe_epochs * images:
        score = _scoring(arch, data, probed, attack) if attack else _passes(arch, data, probed)
        found = _sum(found, score)
    if eval_attack is None or not held:
        return found
    times = sum(recipe.evaluates_robustly_at(epoch) for epoch in range(1, epochs + 1))
    times = times if attack else 0  # ST is selected by SA
    return _sum(
        found, _passes(arch, data, epochs * held), _scoring(arch, data, times * held, eval_attack)
    )


def _testing(
    arch: str, data: DataSet, recipe: TrainingConfig, attack: PGD, ra: str
) -> dict[Work, float]:
    """SA and RA of the last epoch and, where another may be selected, of that; RA_any of one."""
    count, tests = data.test_images, 1 if recipe.selection == "last" else 2
    return _sum(
        _passes(arch, data, tests * count),
        _scoring(arch, data, (tests + (ra == "any")) * count, attack),
    )


def _scoring(arch: str, data: DataSet, count: float, attack: Attack) -> dict[Work, float]:
    """An attack and its score."""
    return _forward_passes(arch, data, count * (1 + attack.passes), attack)


def _attacking(arch: str, data: DataSet, count: float, attack: Attack) -> dict[Work, float]:
    """An attack alone."""
    return _forward_passes(arch, data, count * attack.passes, attack)


def _forward_passes(arch: str, data: DataSet, count: float, attack: Attack) -> dict[Work, float]:
    precision = attack.precision if isinstance(attack, PGD) else "fp32"
    return {Work("pgd20", arch, data.size, precision): count * forward(arch, data.size)}


def _passes(arch: str, data: DataSet, count: float) -> dict[Work, float]:
    return {Work("surface", arch, data.size): count * forward(arch, data.size)}
