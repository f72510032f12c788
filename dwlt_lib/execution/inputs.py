"""What records are made from: there before a run starts; images as planned, cut to the budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from dwlt_lib.attacks import auto
from dwlt_lib.config import parameter_file
from dwlt_lib.config.datasets import CATALOGUE, LISTED, DataSet
from dwlt_lib.config.recipes import TrainingConfig
from dwlt_lib.config.specs import ImportedSpec, RobustnessSpec, Spec, reads
from dwlt_lib.data import fingerprints, folders
from dwlt_lib.data.batches import Images, load_images
from dwlt_lib.data.decoding import decode_center_crop
from dwlt_lib.data.loading import listing
from dwlt_lib.data.subsets import subset
from dwlt_lib.execution.costs import ENOUGH
from dwlt_lib.execution.devices import resolve_device
from dwlt_lib.models import imported

MAX_CHECKED_BYTES = 2**26  # of the pictures of a split: seconds
HELD = 5000  # images that validation=held_5000 holds out, as the authors' scripts do


@dataclass(frozen=True)
class Budget:
    """The share of a data set's training images that a record may use (section 4.3)."""

    row: DataSet
    """The data set."""
    fraction: float = 1.0
    """The share, in (0, 1]."""
    rule: str = "stratified"
    """How the share is drawn: stratified by class, or first_n."""
    seed: int = 0
    """Seed of the draw."""


def check_inputs(specs: Iterable[Spec], device: str, file: Path | None = None) -> str:
    """Check that these records can be made here, before anything is started or written.

    Pictures of one's own are decoded, up to `MAX_CHECKED_BYTES` of a split, so that a damaged one
    ends no run an hour later.

    Args:
        specs: the records that are to be made.
        device: auto, cpu or cuda.
        file: the parameter file, of which messages name the line.

    Returns:
        The type of device to make them on, cpu or cuda.

    Raises:
        ValueError: one line; the device is not there, or a file of images or of theta_p that a
            record reads, or the package of an attack, is missing, or a picture is damaged.
    """
    splits = {}
    for spec in specs:
        if isinstance(spec, RobustnessSpec) and "AutoAttack" in spec.attacks:
            auto.check(spec.transfer.data.classes)
        if isinstance(spec, ImportedSpec) and (problem := imported.missing_file_error(spec)):
            raise ValueError(f"{_place(file, 'weights', spec.pretraining)}{problem}")
        splits |= dict.fromkeys(reads(spec))
    for row, split in splits:
        try:
            if row.loader != "embedded":
                folders.split_path(row, split)
            if row.loader in LISTED and row.name not in CATALOGUE:
                _check_pictures(listing(row, split))
        except ValueError as error:
            raise ValueError(f"{_place(file, 'data', row.name)}{error}") from error
    return resolve_device(device).type


def _place(file: Path | None, *key: str) -> str:
    if file is None:
        return ""
    return f"{parameter_file.place(parameter_file.read(file), str(file), *key)}: "


def _check_pictures(pictures: folders.Listing) -> None:
    """Raises ValueError if one of the first `MAX_CHECKED_BYTES` is no whole picture."""
    count = 0
    for index in range(len(pictures)):
        path = pictures.file(index)
        count += path.stat().st_size
        if count > MAX_CHECKED_BYTES:
            break
        decode_center_crop(str(path), 1)


def verified_images(row: DataSet, split: str, device: torch.device | str) -> Images:
    """The images of a split, which must be those that the row has the fingerprint of.

    Args:
        row: the data set.
        split: train or test.
        device: where the images go.

    Returns:
        The images (N,3,H,W) uint8 with their labels (N,).

    Raises:
        ValueError: they are missing, or others than when the study was planned.
    """
    found = load_images(row, split, device)
    _check_fingerprint(row, split)
    return found


def check_unchanged(spec: Spec) -> None:
    """Refuse a record whose images have changed since it was planned.

    Args:
        spec: the record's description.

    Raises:
        ValueError: one line, if images that it is made from are others now.
    """
    for row, split in reads(spec):
        _check_fingerprint(row, split)


def split_budget(
    budget: Budget, recipe: TrainingConfig, device: torch.device | str
) -> tuple[Images, Images | None]:
    """Training and validation images, both out of the same budget (section 3).

    Where images have groups, as GTSRB's tracks of one sign, both are whole groups and share none.

    Args:
        budget: which training images may be used.
        recipe: its `validation` says which images are held out.
        device: where the images go.

    Returns:
        Training images; validation images, None where there would be too few to select by.

    Raises:
        ValueError: images are missing or have changed, or too few to hold 5,000 out.
    """
    everything = verified_images(budget.row, "train", device)
    if recipe.validation == "held_5000":
        if len(everything) <= HELD:
            raise ValueError(
                f"validation=held_5000: {budget.row.name} has {len(everything)} training images;"
                " want more than 5,000, or validation: tenth"
            )
        every = torch.arange(len(everything))
        held, rest = every[-HELD:], every[:-HELD]
        if everything.groups is not None:
            rest = rest[~torch.isin(everything.groups[rest], everything.groups[held])]
        return _draw(everything.take(rest), budget), everything.take(held)
    chosen = _draw(everything, budget)
    if recipe.validation == "test":
        return chosen, verified_images(budget.row, "test", device)
    held = subset(chosen.y, 0.1, budget.seed + 1, groups=chosen.groups)
    if recipe.validation == "none" or len(held) < ENOUGH or len(held) == len(chosen):
        return chosen, None
    training = torch.ones(len(chosen), dtype=torch.bool)
    training[held] = False
    return chosen.take(training.nonzero().squeeze(1)), chosen.take(held)


def _draw(images: Images, budget: Budget) -> Images:
    chosen = subset(images.y, budget.fraction, budget.seed, budget.rule, images.groups)
    return images.take(chosen)


def _check_fingerprint(row: DataSet, split: str) -> None:
    if problem := fingerprints.mismatch(row, split):
        raise ValueError(problem)
