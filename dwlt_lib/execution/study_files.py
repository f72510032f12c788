"""A parameter file into a study whose records have their ids: images and weights are read here."""

from __future__ import annotations

from pathlib import Path

from dwlt_lib.config import parameter_file
from dwlt_lib.config.parameter_file import BadStudy, place
from dwlt_lib.config.studies import Study, dataset
from dwlt_lib.data import fingerprints, folders
from dwlt_lib.execution.costs import forward
from dwlt_lib.models import imported
from dwlt_lib.records import store


def read_study(path: str | Path) -> Study:
    """The study that a parameter file describes.

    The images and the imported weights that it names get their identity here, from the files, or
    else as the study noted it when it was last planned.

    Args:
        path: the parameter file, such as params/tour.yaml.

    Returns:
        The study; records that depend on images or weights that are not there yet have
        provisional ids.

    Raises:
        BadStudy: one line with the file, the line in it, what is wrong and the remedy; also if
            another file with other parameters is a study of the same name.
    """
    path = Path(path)
    origin, text = str(path), parameter_file.read(path)
    found = _counted(parameter_file.parse(text, origin), text, origin)
    noted = store.noted(found.name)
    params = noted.get("params", {})
    key = "arch"
    try:
        _check_networks(found)
        key = "weights"
        if found.weights:
            row = dataset(found, found.source)
            found = imported.resolve_identities(found, row, params.get(key, {}))
        key = "data"
        found = fingerprints.resolve_fingerprints(found, params.get(key, {}))
    except ValueError as error:
        raise BadStudy(f"{place(text, origin, key)}: {error}") from None
    other = Path(noted.get("file") or path)
    if other.exists() and not other.samefile(path) and store.has_changed(found):
        raise BadStudy(
            f"{place(text, origin, 'name')}: name={found.name}: {other} is a study of that name"
            " with other parameters; give this one a name of its own"
        )
    return found


def provisional_inputs(study: Study) -> list[str]:
    """A line for each input whose content is not known yet: ids that build on it are provisional.

    Args:
        study: of `read_study`.

    Returns:
        The lines; empty if all ids are final.
    """
    return [*imported.unresolved(study), *fingerprints.unresolved(study)]


def _check_networks(study: Study) -> None:
    """Raises ValueError, in one line, if a network cannot be built, or not for the images."""
    archs = [study.arch, *([study.surrogate.arch] if study.transfer_attacks else [])]
    for arch in archs:
        for row in study.rows():
            forward(arch, row.size)


def _counted(study: Study, text: str, origin: str) -> Study:
    counts = {}
    for row in study.rows():
        try:
            counts[row.name] = folders.count_images(row)
        except ValueError as error:
            raise BadStudy(f"{place(text, origin, 'data', row.name)}: {error}") from error
    return parameter_file.with_counts(study, counts, text, origin)
