"""theta_p that a study takes from files of `dwlt weights import`: where they lie and which they
are. No torch.

Only a file's header is read here: what it says of itself. Making its record reads and checks the
whole of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from dwlt_lib import files

if TYPE_CHECKING:
    from dwlt_lib.config.datasets import DataSet
    from dwlt_lib.config.specs import ImportedSpec
    from dwlt_lib.config.studies import Study

WEIGHTS = "dwlt-weights-1"  # rises when the layout of such a file changes

REQUIRED_METADATA = {"pretraining", "arch", "classes", "theta"}


def normalises(value: object) -> bool:
    """Whether this is a mean or a std: three finite numbers, one a channel."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(each) in (int, float) and abs(each) < 1e6 for each in value)
    )


def path_of(file: str) -> Path:
    """Where a study's file of theta_p lies: as it says, or beneath DWLT_DATA/weights."""
    from dwlt_lib.config.datasets import data_root

    return data_root() / "weights" / file


def about(path: Path) -> dict[str, Any]:
    """What a file of theta_p says of itself (pretraining, arch, classes, theta...); ValueError, one
    line, if it is not one that `dwlt weights import` wrote."""
    path = files.regular(path)
    try:
        with safe_open(path, "np") as file:
            said = json.loads((file.metadata() or {}).get("dwlt", "null"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path}: cannot be read as safetensors ({line}); write it again with dwlt weights"
            " import"
        ) from error
    if not isinstance(said, dict) or said.get("format") != WEIGHTS or not _sound(said):
        raise ValueError(
            f"{path}: not a file of format {WEIGHTS}; want one that dwlt weights import wrote"
        )
    return said


def _sound(said: Mapping[str, Any]) -> bool:
    """Whether what a file says of itself is what such files say, each thing of its kind."""
    if not REQUIRED_METADATA <= said.keys() or said["pretraining"] not in ("STD", "FAT", "AT"):
        return False
    return (
        isinstance(said["arch"], str)
        and len(said["arch"]) < 50
        and type(said["classes"]) is int
        and isinstance(said["theta"], str)
        and re.fullmatch("[0-9a-f]{64}", said["theta"]) is not None
        and all(normalises(said[name]) for name in ("mean", "std") if name in said)
    )


def mismatch(
    said: Mapping[str, Any], pretraining: str, arch: str, row: DataSet, theta: str | None
) -> str | None:
    """Why a file that says this of itself is not that theta_p on that data set; None if it is.

    Args:
        said: what the file says of itself (`about`).
        pretraining: STD, FAT or AT.
        arch: the network.
        row: the data set that theta_p was trained on.
        theta: the hash that its tensors must have; None takes any.
    """
    if said["pretraining"] != pretraining:
        return (
            f"is theta_{said['pretraining']}; want theta_{pretraining}, imported with --as"
            f" {pretraining.lower()}"
        )
    if (said["arch"], said["classes"]) != (arch, row.classes):
        return (
            f"is a {said['arch']} with {said['classes']} classes; want the study's, a {arch} with"
            f" {row.classes} ({row.name})"
        )
    for name, wanted in (("mean", row.mean), ("std", row.std)):
        if any(abs(a - b) > 1e-4 for a, b in zip(said.get(name, wanted), wanted, strict=True)):
            return (
                f"was trained on images of {name} {said[name]}; want {list(wanted)}: set"
                f" data.{row.name}.{name}"
            )
    if theta is not None and said["theta"] != theta:
        return f"holds weights of sha256 {said['theta']}; want {theta}, which the study pins"
    return None


def mismatches(study: Study, row: DataSet) -> Iterator[tuple[tuple[str, str], str]]:
    """What is wrong with the files of theta_p that are there, each with its place in the study.

    Args:
        study: names the files.
        row: the source data set.
    """
    for p, given in study.weights.items():
        path = path_of(given.file)
        try:
            wrong = path.exists() and mismatch(about(path), p, study.arch, row, given.theta)
        except ValueError as error:
            yield ("weights", p), f"weights.{p}: {error}"
        else:
            if wrong:
                yield ("weights", p), f"weights.{p}: {path} {wrong}"


def resolve_identities(study: Study, noted: Mapping[str, Any]) -> Study:
    """The study with the identity of every theta_p that comes from a file: what the file says, else
    what is pinned, else what was `noted` of the same file ({p: {file, theta}}) when the study was
    planned before, else None."""
    found = {}
    for p, given in study.weights.items():
        path, before = path_of(given.file), noted.get(p) or {}
        theta = given.theta or (about(path)["theta"] if path.exists() else None)
        if theta is None and before.get("file") == given.file:
            theta = before.get("theta")
        found[p] = given.model_copy(update={"theta": theta})
    return study.model_copy(update={"weights": found})


def unresolved(study: Study) -> list[str]:
    """A line for every file that is not there and whose content no pin or plan tells: ids that
    build on it are provisional."""
    return [
        f"weights.{p}: {path_of(given.file)} is not there yet; ids that build on it are provisional"
        for p, given in study.weights.items()
        if given.theta is None
    ]


def missing_file_error(spec: ImportedSpec) -> str | None:
    """One line if the file is not there: what was expected, and the commands that bring it."""
    from dwlt_lib.config.specs import UNKNOWN
    from dwlt_lib.models.pretrained import remedy

    path = path_of(spec.file)
    if path.exists():
        return None
    which = "" if spec.theta == UNKNOWN else f" of sha256 {spec.theta}"
    return (
        f"weights.{spec.pretraining}: {path} is missing; want theta_{spec.pretraining}{which}, a"
        f" {spec.arch} with {spec.data.classes} classes ({spec.data.name});"
        f" {remedy(spec.pretraining.lower(), path)}"
    )
