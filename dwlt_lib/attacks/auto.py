"""AutoAttack whole, its standard version by the package pyautoattack (Croce & Hein, ICML 2020)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from dwlt_lib.attacks.pgd import network_under_attack
from dwlt_lib.config.recipes import AutoAttack

TARGETS = 9
"""Wrong classes that its targeted attacks aim at; all of them where there are fewer."""
MIN_CLASSES = 4
"""Its targeted difference of logits ratio takes the fourth largest logit."""


def check(classes: int) -> None:
    """Refuse what it cannot attack.

    Args:
        classes: of the network.

    Raises:
        ValueError: one line; the package is missing or the classes are too few.
    """
    ours = "APGD-CE, APGD-T and Square"
    if find_spec("pyautoattack") is None:
        raise ValueError(
            "AutoAttack needs the package pyautoattack, which is not there: pip install"
            f" 'double-win-lottery-tickets[attacks]', or name {ours} instead"
        )
    if classes < MIN_CLASSES:
        raise ValueError(
            f"AutoAttack on {classes} classes: want {MIN_CLASSES} or more for its targeted loss;"
            f" name {ours} instead"
        )


def perturb(
    model: nn.Module, x: Tensor, y: Tensor, attack: AutoAttack, rng: torch.Generator
) -> Tensor:
    """The images that the package finds, by APGD-CE, APGD-T, FAB-T and Square one after another.

    Each attacks the images that those before it left right. Torch's global generator, which the
    package seeds, is put back.

    Args:
        model: a network in eval mode.
        x: images (B,C,H,W), float in [0,1].
        y: their classes (B,), int64.
        attack: the adversary.
        rng: where the package's seed is drawn from.

    Returns:
        (B,C,H,W), within eps of x and within [0,1].

    Raises:
        ValueError: of `check`.
    """
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    check(classes)
    import pyautoattack  # pyright: ignore[reportMissingImports]  an extra

    seed = int(torch.randint(2**31, (), generator=rng, device=rng.device))
    gpus = [x.device] if x.device.type == "cuda" else []
    with network_under_attack(model) as network, torch.random.fork_rng(gpus):
        package = pyautoattack.AutoAttack(network, eps=attack.eps, seed=seed, device=x.device)
        targets = min(TARGETS, classes - 1)
        package.apgd_targeted.n_target_classes = package.fab.n_target_classes = targets
        return package.run_standard_evaluation(x, y, batch_size=len(x))[0]


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect what the package warns of, such as zero gradients, in place of printing it.

    Yields:
        The warnings, each once.
    """
    said: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        text = record.getMessage().partition(" See flags_doc.md")[0]
        if record.levelno >= logging.WARNING and text not in said:
            said.append(text)
        return False

    logger = logging.getLogger("auto-attack")
    logger.addFilter(keep)
    try:
        yield said
    finally:
        logger.removeFilter(keep)
