"""A parameter file's text into a study.

The preset it stands on, and one clear line for whatever is wrong with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from dwlt_lib import files
from dwlt_lib.config.datasets import CATALOGUE, DataSet
from dwlt_lib.config.planning import plan
from dwlt_lib.config.recipes import TrainingConfig
from dwlt_lib.config.specs import (
    TWO_OF_FOUR,
    MaskSpec,
    PretrainingSpec,
    Spec,
    TrajectorySpec,
    TransferSpec,
    label,
    level_of_half,
)
from dwlt_lib.config.studies import DENSE, Preset, Study, dataset, records_asked_for
from dwlt_lib.config.yaml_text import BadStudy, Key, YamlText, read_yaml

MOST_BYTES = 2**18  # the longest of the paper's studies has 2 kB
MOST_RECORDS = 50_000  # masks and tickets; all of the paper's studies together have 5,000
BLOCKS = ("grid", "masks", "landscapes", "transfer_attacks", "robustness")
PRESETS = Path(__file__).parent / "presets"

Problem = tuple[Key, str]  # the setting that is wrong, and a sentence about it


def read(path: str | Path) -> str:
    """The text of a parameter file.

    Args:
        path: the file, of at most MOST_BYTES bytes in UTF-8.

    Returns:
        Its text.

    Raises:
        BadStudy: it is no file, too large or no text.
    """
    try:
        with open(files.regular(path), "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise BadStudy(f"{error}; want a file of parameters such as params/tour.yaml") from error
    if len(content) > MOST_BYTES:
        raise BadStudy(
            f"{path}: larger than {MOST_BYTES:,} bytes; want a parameter file such as"
            " params/tour.yaml"
        )
    try:
        return content.decode("utf-8-sig")  # some editors begin a file with a mark of its encoding
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadStudy(
            f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8 ({error.reason}); save"
            " the file as UTF-8"
        ) from error


@cache
def preset(name: str) -> dict[str, Any]:
    """The settings of a preset, over which a study's own are laid.

    Args:
        name: as_paper or as_code.

    Returns:
        Plain values by key of the parameter file; they are shared, so never change them.
    """
    path = PRESETS / f"{name}.yaml"
    return read_yaml(read(path), str(path)).values


def parse(text: str, origin: str) -> Study:
    """The study that a parameter file's text describes, resolved over its preset.

    Args:
        text: the file's text.
        origin: the file's name, for errors.

    Returns:
        The study; its data sets and weights are not looked at.

    Raises:
        BadStudy: one line with the file, the line in it, what is wrong and the remedy.
    """
    source = read_yaml(text, origin)
    name = source.values.get("preset")
    base = preset(name if name in get_args(Preset) else "as_paper")
    settings = _with_catalogue(_over(base, source.values))
    try:
        study = Study.model_validate_json(json.dumps(settings, default=str))
    except ValidationError as error:
        raise BadStudy(first_error(error, source, len(base["overrides"]))) from error
    _demand_sound(study, source)
    return study


def with_counts(
    study: Study, counts: Mapping[str, Mapping[str, int]], text: str, origin: str
) -> Study:
    """The study with the numbers of images that its data sets' files hold.

    Args:
        study: what `parse` made of the text.
        counts: by data set, the fields of its row that were counted (train_images, test_images).
        text: the parameter file's text.
        origin: its name, for errors.

    Returns:
        The study, its rows with those numbers.

    Raises:
        BadStudy: the file states another number, or what it asks for does not fit these numbers.
    """
    source, rows = read_yaml(text, origin), dict(study.data)
    for name, counted in counts.items():
        row = dataset(study, name)
        rows[name] = row.model_copy(update=counted)
        for field, count in counted.items():
            stated = getattr(row, field)
            if stated != count and ("data", name, field) in source.lines:
                raise BadStudy(
                    f"{source.place('data', name, field)}: data.{name}.{field}={stated}: {count:,}"
                    " are there; bring the rest, or take the line out"
                )
    study = study.model_copy(update={"data": rows})
    _demand_sound(study, source)
    return study


def place(text: str, origin: str, *key: str | int) -> str:
    """Where a setting of a parameter file's text is written, or the innermost one around it.

    Args:
        text: the file's text.
        origin: the file's name.
        key: the setting: its name within the names and entries around it, as in
            `place(text, origin, "data", "mine", "path")`.

    Returns:
        FILE:LINE, or FILE alone.
    """
    return read_yaml(text, origin).place(*key)


# ----------------------------------------------------------------------------------------------
# What no single setting can tell


def _demand_sound(study: Study, source: YamlText) -> None:
    """Raises BadStudy if settings contradict one another."""
    for problems in (
        _too_much(study),
        _bad_rows(study),
        _unknown_data_sets(study),
        _bad_levels(study),
        _bad_figures(study),
        _bad_trainings(study, source),
    ):
        for key, problem in problems:
            raise BadStudy(f"{source.place(*key)}: {problem}")


def _too_much(study: Study) -> Iterator[Problem]:
    for field in BLOCKS:
        counts = [records_asked_for(block) for block in getattr(study, field)]
        if sum(counts) > MOST_RECORDS:
            yield (
                (field, counts.index(max(counts))),
                f"{field} asks for {sum(counts):,} records, {max(counts):,} of them here; want"
                f" {MOST_RECORDS:,} at most; shorten its lists, or split the study",
            )


def _bad_rows(study: Study) -> Iterator[Problem]:
    for name, row in study.data.items():
        key, packaged = ("data", name), row.loader in ("embedded", "torchvision")
        at = ".".join(key)
        if row.name != name:
            yield (*key, "name"), f"{at}.name={row.name!r}: want {name}; take the line out"
        if packaged and (name not in CATALOGUE or row.loader != CATALOGUE[name].loader):
            problem = f"{at}.loader={row.loader!r}: holds no {name}; want npz or folder, and a path"
            yield (*key, "loader"), problem
        if not packaged and not row.path:
            yield key, f"{at}.path is missing: {row.loader} images are read from there; set it"


def _unknown_data_sets(study: Study) -> Iterator[Problem]:
    named: list[tuple[Key, str | None]] = [(("source",), study.source)]
    named += [((), override.dataset) for override in study.overrides]
    for field in ("grid", "landscapes", "transfer_attacks", "robustness"):
        for i, block in enumerate(getattr(study, field)):
            named += [((field, i, "dataset", j), name) for j, name in enumerate(block.dataset)]
    for key, name in named:
        try:
            dataset(study, name or study.source)
        except ValueError as error:
            yield key, str(error)


def _bad_levels(study: Study) -> Iterator[Problem]:
    level = level_of_half(study.prune_fraction)
    for field in BLOCKS:
        for i, block in enumerate(getattr(study, field)):
            for method in block.method:
                if method in TWO_OF_FOUR and {*block.rounds} - {DENSE} != {level}:
                    problem = (
                        f"{field}.{i}.rounds={list(block.rounds)}: {method} is one level, 50 % by"
                        f" definition; want rounds: [{level}] and a block of its own"
                    )
                    yield (field, i, "rounds"), problem


def _bad_figures(study: Study) -> Iterator[Problem]:
    arch, points = study.surrogate.arch, study.landscape.points
    if study.transfer_attacks and arch == study.arch:
        problem = f"surrogate.arch={arch}: the tickets' own; want another, so that it is unseen"
        yield ("surrogate", "arch"), problem
    if study.landscapes and points % 2 == 0:
        problem = f"landscape.points={points}: want an odd number, so that one is the ticket itself"
        yield ("landscape", "points"), problem


def _bad_trainings(study: Study, source: YamlText) -> Iterator[Problem]:
    try:
        specs = plan(study).values()
    except ValueError as error:
        yield (), str(error)
        return
    for spec in specs:
        if isinstance(spec, MaskSpec) and spec.retrain:
            problems = _bad_training(spec, spec.retrain, spec.theta.data, 1.0)
        elif isinstance(spec, TransferSpec):
            problems = _bad_training(spec, spec.recipe, spec.data, spec.fraction)
        elif isinstance(spec, PretrainingSpec):
            problems = _bad_training(spec, spec.recipe, spec.data, 1.0)
        else:
            problems = ()
        for fields, problem in problems:
            key = _written(study, spec, fields, source)
            if fields != ("selection",) or key[-1:] == fields:  # else best is by itself
                yield key, f"{label(spec)}: {problem}"
        if isinstance(spec, TrajectorySpec) and spec.transfer.recipe.epochs < 2:
            problem = f"{label(spec)}: trained for one epoch; a trajectory wants 2 or more"
            yield ("landscapes",), problem


def _written(study: Study, spec: Spec, fields: tuple[str, ...], source: YamlText) -> Key:
    """Where the file sets the first of these of a training's settings, or else asks for it."""
    layers: list[Key] = []
    blocks: list[Key] = [("source",)]
    if isinstance(spec, TransferSpec):
        own = len(source.values.get("overrides", ()))  # the preset's come before them
        for i, override in reversed(list(enumerate(study.overrides, own - len(study.overrides)))):
            if override.changes(spec.data.name, spec.regime, spec.fraction):
                layers.append(("overrides", i, "recipe"))
        layers.append(("transfer", spec.regime))
        blocks = [
            (kind, i, name, getattr(block, name).index(value))
            for name, value in (("fraction", spec.fraction), ("dataset", spec.data.name))
            for kind in ("grid", "landscapes", "transfer_attacks", "robustness")
            for i, block in enumerate(getattr(study, kind))
            if spec.data.name in block.dataset and spec.fraction in block.fraction
        ]
    elif isinstance(spec, PretrainingSpec):
        layers = [("surrogate", "recipe")] if spec.arch != study.arch else []
        layers.append(("pretraining", spec.pretraining))
    elif isinstance(spec, MaskSpec):
        recipes = [name for name in study.retraining if spec.method.startswith(name)]
        layers += [("retraining", name) for name in recipes]
    keys = [*((*layer, field) for field in fields for layer in layers), *blocks]
    return next((key for key in keys if key in source.lines), ())


def _bad_training(
    spec: Spec, config: TrainingConfig, row: DataSet, fraction: float
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The settings that contradict one another, that to be mended first, and a sentence."""
    epochs, probe = config.epochs, config.linear_probe_epochs
    if config.schedule == "steps" and max(config.milestones, default=0) >= epochs:
        yield (
            ("milestones", "epochs"),
            f"milestones={list(config.milestones)}: want less than its {epochs} epochs, or another"
            " schedule",
        )
    if (config.validate_ra_from or 0) > epochs:
        problem = f"validate_ra_from={config.validate_ra_from}: want at most its {epochs} epochs"
        yield ("validate_ra_from", "epochs"), problem
    at = ("linear_probe_epochs",)
    if probe > epochs:
        yield at, f"linear_probe_epochs={probe}: want at most the {epochs} epochs of the training"
    if probe and not isinstance(spec, TransferSpec):
        problem = "only a transfer has a new head; set it under transfer"
        yield at, f"linear_probe_epochs={probe}: {problem}"
    if config.eps_warmup and config.attack is None:
        problem = f"eps_warmup={config.eps_warmup}: ST faces no attack; set it for AT or FAT alone"
        yield ("eps_warmup",), problem
    images = row.train_images
    if config.validation == "held_5000":
        images -= 5000
        if images <= 0:
            problem = f"{row.name} has {row.train_images} images; want tenth"
            yield ("validation",), f"validation=held_5000: {problem}"
    budget = int(round(images * fraction, 6))
    if 0 <= budget < row.classes:
        yield (
            (),
            f"fraction={fraction}: {budget} training images of {row.name}, fewer than its"
            f" {row.classes} classes; want a larger share",
        )
    if config.selection == "best" and config.validation == "none":
        problem = (
            "selection=best: validation=none leaves nothing to select by; take one of them out"
        )
        yield ("selection",), problem


# ----------------------------------------------------------------------------------------------
# What is wrong with a single setting


def first_error(error: ValidationError, source: YamlText, preset_overrides: int = 0) -> str:
    """One line about the setting that says most; how many more there are, too.

    Args:
        error: pydantic's, of the file's values.
        source: the file.
        preset_overrides: how many entries of `overrides` are not the file's own.

    Returns:
        FILE:LINE, the value, what was expected, the remedy.
    """
    errors = error.errors(include_url=False)
    # a list of which an entry is wrong is not too short besides
    around = {one["loc"][:n] for one in errors for n in range(len(one["loc"]))}
    errors = [one for one in errors if one["loc"] not in around]
    # a misspelt key says more than the missing one
    first = min(errors, key=lambda one: one["type"] != "extra_forbidden")
    key = tuple(part for part in first["loc"] if part != "[key]")
    if key[:1] == ("overrides",) and len(key) > 1:  # counted as in the file, without the preset's
        key = ("overrides", int(key[1]) - preset_overrides, *key[2:])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{source.place(*key)}: {_sentence(dict(first), '.'.join(map(str, key)))}{more}"


def _sentence(error: dict[str, Any], place: str) -> str:
    """One clear line out of pydantic's: the place, the value, what was expected, the remedy."""
    if error["type"] == "extra_forbidden":
        return f"{place}: no such setting; mend its spelling or take the line out"
    if error["type"] == "missing":
        return f"{place} is missing; set it"
    value, kind = error["input"], error["type"]
    if kind == "value_error":
        return f"{place + ': ' if place else ''}{error['ctx']['error']}"
    remedy = "mend the value"
    if isinstance(value, str) and kind in ("float_type", "int_type"):
        remedy = "write a number (YAML does not divide: 8/255 is 0.031373)"
        if _NUMBER.fullmatch(value) and isfinite(float(value)):
            remedy = f"write {float(value)!r} (YAML reads 5e-4 as text, 5.0e-4 as a number)"
    elif place.endswith(("eps", "alpha")) and kind == "less_than_equal":
        remedy = "it is measured in [0,1] pixels: for 8/255 write 0.031373"
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}..."
    return f"{place}={shown}: {error['msg'][0].lower()}{error['msg'][1:]}; {remedy}"


_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


# ----------------------------------------------------------------------------------------------
# Presets and the catalogue under what the file says


def _over(base: Any, top: Any) -> Any:
    """`top` laid over `base`, mapping by mapping.

    Overrides are appended, anything else replaces.
    """
    if not (isinstance(base, dict) and isinstance(top, dict)):
        return top
    merged = dict(base)
    for key, value in top.items():
        if key == "overrides" and isinstance(value, list):
            merged[key] = [*base.get(key, []), *value]
        else:
            merged[key] = _over(base[key], value) if key in base else value
    return merged


def _with_catalogue(raw: dict) -> dict:
    """Rows under data.

    Complete with their names and, for known data sets, the catalogue's values.
    """
    rows = raw.get("data")
    if not isinstance(rows, dict):
        return raw
    full = {}
    for name, row in rows.items():
        known = CATALOGUE[name].model_dump(mode="json") if name in CATALOGUE else {"name": name}
        full[name] = {**known, **row} if isinstance(row, dict) else row
    return {**raw, "data": full}
