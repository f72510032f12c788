"""What a record costs: the arithmetic to make it, by sort, in GMAC.

A GMAC is a thousand million multiply-accumulates.
"""

from __future__ import annotations

from collections import Counter
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

# forward cost of one image: GMAC at a side in pixels, of our own networks
GMAC = {
    "resnet8": (0.0125, 32),
    "resnet20": (0.041, 32),
    "resnet8x2_s2": (0.0123, 32),
    "resnet18_32": (0.555, 32),
    "resnet50_32": (1.298, 32),
    "resnet18": (1.814, 224),
    "resnet50": (4.087, 224),
}

# forward passes an image that scores take, gradients of gradients and SynFlow's 100 rounds included
SCORE_PASSES = {"SNIP": 3, "GraSP": 9, "SynFlow": 300}


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
    batch: int = 256
    """Images that go through the network together, of which small ones want many."""


def cost(spec: Spec) -> float:
    """What it takes to make one record alone: all its work.

    Args:
        spec: its description.

    Returns:
        GMAC.
    """
    return sum(work(spec).values())


def work(spec: Spec) -> Counter[Work]:
    """What it takes to make one record alone; the most, where training may stop early.

    A backward pass to weights and input costs two forward passes, to the input alone one: a PGD-10
    training step so costs 23 forward passes an image, the score under PGD-20 41. Decoding and
    augmenting images is not counted.

    Args:
        spec: its description.

    Returns:
        GMAC by sort; empty where nothing is trained or tested.
    """
    if isinstance(spec, PretrainingSpec):
        return _trained(spec, spec.arch, 1.0)
    if isinstance(spec, TransferSpec):
        return _trained(spec, spec.theta.arch, spec.fraction)
    if isinstance(spec, ImportedSpec):
        return Counter()
    if isinstance(spec, MaskSpec):
        arch, data = spec.theta.arch, spec.theta.data
        if passes := SCORE_PASSES.get(spec.method):
            images = spec.images or 1
            step = Work("st", arch, data.size)
            return Counter({step: images * passes * forward(arch, data.size)})
        if spec.retrain is None or not retrains(spec):
            return Counter()
        tested = _passes(arch, data, data.test_images)
        return _training(arch, data, spec.retrain, 1.0, None) + tested
    arch, data, attack = spec.transfer.theta.arch, spec.transfer.data, spec.transfer.evaluation
    if isinstance(spec, AttackSpec):
        attacked = _attacked(spec.surrogate.arch, data, data.test_images, attack, scores=0)
        return attacked + _passes(arch, data, data.test_images)
    count = min(spec.count, data.test_images)
    if isinstance(spec, RobustnessSpec):
        curves = [*spec.eps_curve(attack), *spec.steps_curve(attack)]
        every = [*spec.by_name(attack).values(), *curves, *spec.probes(attack).values()]
        return sum((_attacked(arch, data, count, one) for one in every), Counter())
    surface = _passes(arch, data, spec.points**2 * count)
    if spec.images == "clean":
        return surface
    return surface + _attacked(arch, data, count, attack, scores=0)


def forward(arch: str, size: int) -> float:
    """What a network's forward pass takes on one image.

    Args:
        arch: the network.
        size: side of the image in pixels.

    Returns:
        GMAC.
    """
    if arch not in GMAC:
        from dwlt_lib.models.architectures import gmac  # takes torch, which ours do without

        return gmac(arch, size)
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


def _trained(spec: PretrainingSpec | TransferSpec, arch: str, fraction: float) -> Counter[Work]:
    """Training; then SA and RA of the last epoch and, where another may be selected, of that, too.

    RA_any is measured of one.
    """
    data, count, tests = spec.data, spec.data.test_images, 2
    if spec.recipe.selection == "last":
        tests = 1
    scores = (tests + (spec.ra == "any")) * count
    trained = _training(arch, data, spec.recipe, fraction, spec.evaluation)
    return (
        trained
        + _passes(arch, data, tests * count)
        + _attacked(arch, data, scores, spec.evaluation)
    )


def _training(
    arch: str, data: DataSet, recipe: TrainingConfig, fraction: float, eval_attack: PGD | None
) -> Counter[Work]:
    """All epochs, and their validation.

    With validation images they end with SA and, where an attack is trained against, some with RA by
    `eval_attack`. While the head alone is trained nothing is validated, and a step is an attack on
    a network in eval mode and a forward pass; what the head's gradient costs is not counted.
    """
    images, held = split(data, recipe, fraction)
    attack, epochs = recipe.attack, recipe.epochs
    step, passes = Work("st", arch, data.size, recipe.precision), 3
    if attack:
        step = Work("at", arch, data.size, recipe.precision, attack.bn)
        passes += 2 * attack.steps
    step = step._replace(batch=min(recipe.micro_batch_size or recipe.batch, max(1, int(images))))
    found = Counter({step: epochs * images * passes * forward(arch, data.size)})
    probed = recipe.linear_probe_epochs * images
    found += _attacked(arch, data, probed, attack) if attack else _passes(arch, data, probed)
    if eval_attack and held:
        found += _passes(arch, data, epochs * held)
        if attack:  # ST is selected by SA
            times = sum(recipe.evaluates_robustly_at(epoch) for epoch in range(1, epochs + 1))
            found += _attacked(arch, data, times * held, eval_attack)
    return found


def _passes(arch: str, data: DataSet, count: float) -> Counter[Work]:
    """Forward passes alone."""
    return Counter({Work("surface", arch, data.size): count * forward(arch, data.size)})


def _attacked(
    arch: str, data: DataSet, count: float, attack: Attack, scores: int = 1
) -> Counter[Work]:
    """An attack and, unless `scores` is 0, its score, which is a forward pass."""
    kind = Work("pgd20", arch, data.size, getattr(attack, "precision", "fp32"))
    return Counter({kind: count * (scores + attack.passes) * forward(arch, data.size)})
