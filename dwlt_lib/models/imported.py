"""Which file a study takes theta_p from, and whether it is the theta_p that the study wants.

No torch: only a file's description is read here. Making the record reads and checks all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwlt_lib.models import tensor_files

if TYPE_CHECKING:
    from dwlt_lib.config.datasets import DataSet
    from dwlt_lib.config.specs import ImportedSpec
    from dwlt_lib.config.studies import Study

FORMAT = "dwlt-weights-1"
"""Of a file of theta_p; rises when its layout changes."""
WRITER = "dwlt weights import"


def is_sha256(value: Any) -> bool:
    """Whether this is 64 hexadecimal digits in small letters.

    Args:
        value: from a file's description, so of any type.

    Returns:
        False for a text of another form.

    Raises:
        TypeError: it is no text.
    """
    return re.fullmatch("[0-9a-f]{64}", value) is not None


def is_normalisation(value: object) -> bool:
    """Whether this is a mean or a std: three finite numbers, one per channel.

    Args:
        value: from a file's description, so of any type.

    Returns:
        False for anything else, numbers of 1e6 or more included.
    """
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(each) in (int, float) and abs(each) < 1e6 for each in value)
    )


DESCRIPTION_CHECKS = {
    "pretraining": lambda value: value in ("STD", "FAT", "AT"),
    "arch": lambda value: isinstance(value, str) and len(value) <= 500,
    "classes": lambda value: type(value) is int,
    "theta": is_sha256,
}
"""Which values a description of theta_p has (`tensor_files.check_values`)."""


def weights_path(file: str) -> Path:
    """Where a study's file of theta_p is.

    Args:
        file: as the study names it: absolute, or relative to DWLT_DATA/weights.

    Returns:
        The absolute path; the file need not exist.
    """
    from dwlt_lib.config.datasets import data_root  # needs packages that a ticket loads without

    return data_root() / "weights" / file


def read_description(path: Path) -> dict[str, Any]:
    """The description in a file of theta_p: pretraining, arch, classes, theta (its hash)...

    Args:
        path: the file.

    Returns:
        The description, with every value that a study compares checked for its form.

    Raises:
        ValueError: one line: `dwlt weights import` wrote no such file.
    """
    with tensor_files.open_file(path, "np") as file:
        about = tensor_files.description(file, path, FORMAT, WRITER)
    optional = {name: is_normalisation for name in ("mean", "std") if name in about}
    try:
        tensor_files.check_values(about, DESCRIPTION_CHECKS | optional)
    except ValueError as error:
        raise ValueError(
            f"{path}: not a file of format {FORMAT} ({error}); want one that {WRITER} wrote"
        ) from error
    return about


def mismatch(
    about: Mapping[str, Any], pretraining: str, arch: str, row: DataSet, theta: str | None
) -> str | None:
    """Why a file is not the theta_p that a study wants.

    Args:
        about: the file's description (`read_description`).
        pretraining: STD, FAT or AT.
        arch: the network.
        row: the data set that theta_p was trained on.
        theta: the hash that its tensors must have; None takes any.

    Returns:
        The end of a sentence about the file; None if it is the wanted one.
    """
    if about["pretraining"] != pretraining:
        return (
            f"is theta_{about['pretraining']}; want theta_{pretraining}, imported with --as"
            f" {pretraining.lower()}"
        )
    if (about["arch"], about["classes"]) != (arch, row.classes):
        return (
            f"is a {about['arch']} with {about['classes']} classes; want the study's, a {arch} with"
            f" {row.classes} ({row.name})"
        )
    for name, wanted in (("mean", row.mean), ("std", row.std)):
        if any(abs(a - b) > 1e-4 for a, b in zip(about.get(name, wanted), wanted, strict=True)):
            return (
                f"was trained on images of {name} {about[name]}; want {list(wanted)}: set"
                f" data.{row.name}.{name}"
            )
    if theta is not None and about["theta"] != theta:
        return f"holds weights of sha256 {about['theta']}; want {theta}, which the study pins"
    return None


def resolve_identities(study: Study, row: DataSet, planned: Mapping[str, Any]) -> Study:
    """The study with the hash of every theta_p that comes from a file.

    It is pinned in the study, or read from the file, or known from an earlier plan with the same
    file.

    Args:
        study: as its parameter file says.
        row: the source data set.
        planned: by pretraining, the file and theta when the study was planned before.

    Returns:
        A copy whose `weights` have their `theta`, None where none of the three tells it.

    Raises:
        ValueError: one line: a file that exists is not the theta_p that the study wants.
    """
    resolved = {}
    for pretraining, weights in study.weights.items():
        path, before = weights_path(weights.file), planned.get(pretraining) or {}
        theta = weights.theta
        if path.exists():
            try:
                about = read_description(path)
            except ValueError as error:
                raise ValueError(f"weights.{pretraining}: {error}") from error
            if problem := mismatch(about, pretraining, study.arch, row, theta):
                raise ValueError(f"weights.{pretraining}: {path} {problem}")
            theta = about["theta"]
        elif theta is None and before.get("file") == weights.file:
            theta = before.get("theta")
        resolved[pretraining] = weights.model_copy(update={"theta": theta})
    return study.model_copy(update={"weights": resolved})


def unresolved(study: Study) -> list[str]:
    """A line for every theta_p whose file does not exist and whose hash is not known.

    Args:
        study: of `resolve_identities`.

    Returns:
        The lines, for a terminal; empty if all ids are final.
    """
    return [
        f"weights.{pretraining}: {weights_path(weights.file)} is not there yet; ids that build on"
        " it are provisional"
        for pretraining, weights in study.weights.items()
        if weights.theta is None
    ]


def missing_file_error(spec: ImportedSpec) -> str | None:
    """One line if theta_p's file does not exist: what was expected, and how to get it.

    Args:
        spec: the theta_p.

    Returns:
        None if the file exists.
    """
    from dwlt_lib.config.specs import UNKNOWN
    from dwlt_lib.models.pretrained import OFFICIAL, commands

    path = weights_path(spec.file)
    if path.exists():
        return None
    name = spec.pretraining.lower()
    if spec.pretraining == "AT":
        robust = {each.arch: key for key, each in OFFICIAL.items() if each.arch != "resnet50"}
        name = robust.get(spec.arch, name)
    which = "" if spec.theta == UNKNOWN else f" of sha256 {spec.theta}"
    return (
        f"weights.{spec.pretraining}: {path} is missing; want theta_{spec.pretraining}{which}, a"
        f" {spec.arch} with {spec.data.classes} classes ({spec.data.name});"
        f" run: {commands(name, path)}"
    )
