"""A parameter file's text into a study.

The presets it stands on, and one clear line for whatever is wrong with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dwlt_lib import files
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.grid import asked
from dwlt_lib.config.specs import MaskSpec, TrajectorySpec, label
from dwlt_lib.config.studies import Study, dataset, plan

# what a parameter file may hold at most: the longest of the paper's studies has 2 kB, 200 nodes and
# 4 levels, and all
# of them together ask for 5,000 records
MOST_BYTES = 2**18
MOST_NODES = 20_000  # settings, entries and lists; an alias (*) counts as all that it stands for
MOST_LEVELS = 20
MOST_RECORDS = 100_000
MOST_DIGITS = 18  # of a whole number

_CIFAR_AT = {
    "epochs": 100,
    "batch": 128,
    "lr": 0.1,
    "schedule": "steps",
    "milestones": [50, 75],
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "steps": 10,
}
_SVHN = {"lr": 0.01, "schedule": "cosine", "epochs": 80, "milestones": [], "selection": "best"}
# micro_batch_size is ours: 2048 images of 224 pixels fit no GPU, several would share them out so
_IMP = {
    "epochs": 30,
    "batch": 2048,
    "micro_batch_size": 256,
    "lr": 5e-4,
    "schedule": "constant",
    "milestones": [],
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "validation": "none",
}
_FROM_SCRATCH = {
    "epochs": 90,
    "batch": 256,
    "lr": 0.1,
    "schedule": "steps",
    "milestones": [30, 60],
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "validation": "tenth",
}  # ours: the paper starts from official weights
_AT_224 = {"size": 224, "crop": 0.875, "augment": ["resized_crop", "flip"]}
_VISDA = {**_AT_224, "crop": 1.0, "resize": "both", "scale": [0.75, 1.33]}
_PRETRAINING = {
    "STD": _FROM_SCRATCH,
    "FAT": {**_FROM_SCRATCH, "steps": 1},
    "AT": {**_FROM_SCRATCH, "steps": 3},
}

PRESETS: dict[str, dict[str, Any]] = {
    # sections 3 and A1
    "as_paper": {
        "pretraining": _PRETRAINING,
        "retraining": {"IMP-ST": _IMP, "IMP-AT": {**_IMP, "steps": 3}},
        "transfer": {
            regime: {
                **_CIFAR_AT,
                "validation": "tenth",
                **({"steps": 1} if regime == "FAT" else {}),
            }
            for regime in ("ST", "FAT", "AT")
        },
        "overrides": [{"dataset": "svhn", "recipe": _SVHN}],
    },
    # the authors' scripts. Ours in it: FAT downstream, which is AT but for its attack and for
    # validating RA after every epoch; and VisDA-17's FAT and AT, of which the last 5,000 training
    # images would all be of one class. VisDA-17's ST selects on its test images, as the scripts do.
    "as_code": {
        "pretraining": _PRETRAINING,
        "retraining": {"IMP-ST": _IMP, "IMP-AT": {**_IMP, "steps": 3, "alpha": 16 / (3 * 255)}},
        "transfer": {
            "ST": {
                **_CIFAR_AT,
                "batch": 64,
                "lr": 0.001,
                "milestones": [50, 100],
                "epochs": 150,
                "validation": "held_5000",
            },
            "FAT": {**_CIFAR_AT, "validation": "held_5000", "steps": 1},
            "AT": {**_CIFAR_AT, "validation": "held_5000", "validate_ra_from": 46},
        },
        "overrides": [
            {"dataset": "svhn", "regime": "FAT", "recipe": _SVHN},
            {"dataset": "svhn", "regime": "AT", "recipe": {**_SVHN, "validate_ra_from": 1}},
            {"dataset": "visda17", "recipe": {"validation": "tenth"}},
            {"dataset": "visda17", "regime": "ST", "recipe": {"validation": "test"}},
        ],
        "subset_rule": "first_n",
        "data": {"cifar10": _AT_224, "cifar100": _AT_224, "svhn": _AT_224, "visda17": _VISDA},
    },
}


class BadStudy(ValueError):
    """A parameter file that cannot be run.

    Its message is one line that says where, what and the remedy.
    """


def read(path: str | Path) -> str:
    """A parameter file's text.

    Raises BadStudy, one line, if it is no file, too large or no text.
    """
    try:
        with open(files.regular(path), "rb") as file:
            found = file.read(MOST_BYTES + 1)
        if len(found) > MOST_BYTES:
            raise BadStudy(
                f"{path}: larger than {MOST_BYTES:,} bytes; want a parameter file such as"
                " params/tour.yaml"
            )
        return found.decode("utf-8-sig")  # some editors begin a file with a mark of its encoding
    except UnicodeDecodeError as error:
        line = found.count(b"\n", 0, error.start) + 1
        raise BadStudy(
            f"{path}:{line}: byte 0x{found[error.start]:02x} is not UTF-8 ({error.reason}); save"
            " the file as UTF-8"
        ) from error
    except BadStudy:
        raise
    except (OSError, ValueError) as error:
        reason = (
            f"{path}: {error.strerror}; want a file" if isinstance(error, OSError) else str(error)
        )
        raise BadStudy(f"{reason} of parameters such as params/tour.yaml") from error


def parse(text: str, origin: str) -> Study:
    """A study out of a parameter file's text; raises BadStudy before anything starts. origin.

    The file's name.
    """
    loader, tree = _composed(text, origin)
    lines = _lines(tree, origin)
    raw = loader.construct_document(tree)
    preset = raw.get("preset", "as_paper")
    base = (
        PRESETS.get(preset, PRESETS["as_paper"]) if isinstance(preset, str) else PRESETS["as_paper"]
    )
    merged, offset = _over(base, raw), len(base["overrides"])

    def where(*at: str | int) -> str:
        return _where(lines, origin, *at)

    try:
        study = Study.model_validate_json(json.dumps(_with_catalogue(merged), default=str))
    except ValidationError as error:
        found = error.errors(include_url=False)
        # a list of which an entry is wrong is not too short besides; a misspelt key says more than
        # the missing one
        around = {one["loc"][:n] for one in found for n in range(len(one["loc"]))}
        found = [one for one in found if one["loc"] not in around]
        first = min(found, key=lambda one: one["type"] != "extra_forbidden")
        at = tuple(part for part in first["loc"] if part != "[key]")
        if at[:1] == ("overrides",) and len(at) > 1:  # counted as in the file, without the preset's
            at = ("overrides", at[1] - offset, *at[2:])
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise BadStudy(f"{where(*at)}: {_sentence(first, '.'.join(map(str, at)))}{more}") from error
    for at, problem in _contradictions(study):
        raise BadStudy(f"{where(*at)}: {problem}")
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
    lines, rows = _lines(_composed(text, origin)[1], origin), dict(study.data)
    for name, found in counts.items():
        row = dataset(study, name)
        for field, count in found.items():
            if ("data", name, field) in lines and getattr(row, field) != count:
                raise BadStudy(
                    f"{_where(lines, origin, 'data', name, field)}:"
                    f" data.{name}.{field}={getattr(row, field)}: {count:,} are there; bring the"
                    " rest, or take the line out"
                )
        if any(getattr(row, field) != count for field, count in found.items()):
            rows[name] = row.model_copy(update=dict(found))
    if rows == study.data:
        return study
    counted = study.model_copy(update={"data": rows})
    for at, problem in _contradictions(counted):
        raise BadStudy(f"{_where(lines, origin, *at)}: {problem}")
    return counted


def place(text: str, origin: str, *at: str | int) -> str:
    """origin:LINE of a setting of a parameter file's text, or of the innermost one around it that
    is written there.
    """
    return _where(_lines(_composed(text, origin)[1], origin), origin, *at)


def _where(lines: dict[tuple, int], origin: str, *at: str | int) -> str:
    while at and at not in lines:
        at = at[:-1]
    return f"{origin}:{lines[at]}" if at else origin


def _contradictions(study: Study) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What no single setting can tell, each with its place.

    Data sets that exist, recipes that can be carried out.
    """
    for field in ("grid", "masks", "landscapes", "transfer_attacks"):
        counts = [asked(block) for block in getattr(study, field)]
        if sum(counts) > MOST_RECORDS:
            worst = counts.index(max(counts))
            yield (
                (field, worst),
                (
                    f"{field} asks for {sum(counts):,} records, {counts[worst]:,} of them here;"
                    f" want {MOST_RECORDS:,} at most; shorten its lists, or split the study"
                ),
            )
            return
    for name, row in study.data.items():
        at = ("data", name)
        if row.name != name:
            yield (*at, "name"), f"data.{name}.name={row.name!r}: want {name}; take the line out"
        if row.loader in ("embedded", "torchvision") and (
            name not in CATALOGUE or row.loader != CATALOGUE[name].loader
        ):
            yield (
                (*at, "loader"),
                (
                    f"data.{name}.loader={row.loader!r}: holds no {name}; want npz or folder, and a"
                    " path"
                ),
            )
        if row.loader not in ("embedded", "torchvision") and not row.path:
            yield (
                at,
                f"data.{name}.path is missing: {row.loader} images are read from there; set it",
            )
    named: list[tuple[str | None, tuple]] = [(study.source, ("source",))]
    named += [(override.dataset, ()) for override in study.overrides]
    for field in ("grid", "landscapes", "transfer_attacks"):
        named += [
            (name, (field, i, "dataset", j))
            for i, block in enumerate(getattr(study, field))
            for j, name in enumerate(block.dataset)
        ]
    for name, at in named:
        if name is not None:
            try:
                dataset(study, name)
            except ValueError as error:
                yield at, str(error)
    if study.transfer_attacks and study.surrogate.arch == study.arch:
        yield (
            ("surrogate", "arch"),
            (
                f"surrogate.arch: {study.surrogate.arch} is the tickets' own architecture; want "
                "another, so that the robust model is unseen"
            ),
        )
    if study.landscapes and study.landscape.points % 2 == 0:
        yield (
            ("landscape", "points"),
            (
                f"landscape.points={study.landscape.points}: want an odd number, so that the "
                "ticket itself is a point of the grid"
            ),
        )
    try:
        planned = plan(study).values()
    except ValueError as error:
        yield (), str(error)
        return
    for spec in planned:
        if isinstance(spec, TrajectorySpec) and spec.transfer.recipe.epochs < 2:
            yield (
                ("landscapes",),
                f"{label(spec)}: trained for one epoch; a trajectory wants 2 or more",
            )
        recipe = getattr(spec, "recipe", getattr(spec, "retrain", None))
        if recipe is None:
            continue
        row = spec.theta.data if isinstance(spec, MaskSpec) else spec.data
        if recipe.schedule == "steps" and max(recipe.milestones, default=0) >= recipe.epochs:
            yield (
                (),
                (
                    f"{label(spec)}: milestones {list(recipe.milestones)}, but training has only"
                    f" {recipe.epochs} epochs; set milestones below that, or another schedule"
                ),
            )
        if (recipe.validate_ra_from or 0) > recipe.epochs:
            yield (
                (),
                (
                    f"{label(spec)}: validate_ra_from={recipe.validate_ra_from}, but training "
                    f"has only {recipe.epochs} epochs, so none could be selected; set it to "
                    f"{recipe.epochs} or less"
                ),
            )
        if recipe.validation == "held_5000" and row.train_images <= 5000:
            yield (
                (),
                (
                    f"{label(spec)}: validation=held_5000, but {row.name} has {row.train_images}"
                    " training images; write validation: tenth"
                ),
            )


def _sentence(error: dict, place: str) -> str:
    """One clear line out of pydantic's: the place, the value, what was expected, the remedy."""
    if error["type"] == "extra_forbidden":
        return f"{place}: no such setting; mend its spelling or take the line out"
    if error["type"] == "missing":
        return f"{place} is missing; set it"
    value = error["input"]
    if error["type"] == "value_error":
        return f"{place + ': ' if place else ''}{error['ctx']['error']}"
    remedy = ""
    if isinstance(value, str) and error["type"] in ("float_type", "int_type"):
        remedy = "; write a number (YAML does not divide: 8/255 is 0.031373)"
        if _NUMBER.fullmatch(value) and isfinite(float(value)):
            remedy = (
                f"; write {float(value)!r}, a number (YAML reads 5e-4 as text, 5.0e-4 as a number)"
            )
    elif place.endswith(("eps", "alpha")) and error["type"] == "less_than_equal":
        remedy = "; it is measured in [0,1] pixels: for 8/255 write 0.031373"
    elif isinstance(value, bool):
        remedy = "; YAML reads yes, no, on and off as true or false: put words in quotes"
    wanted = error["msg"][0].lower() + error["msg"][1:]
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}..."
    return f"{place}={shown}: {wanted}{remedy or '; mend the value'}"


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


# ----------------------------------------------------------------------------------------------
# YAML


class _TooMuch(yaml.MarkedYAMLError):
    """Well-formed YAML of a kind that no study needs; its problem is a sentence for people."""


class _Loader(yaml.SafeLoader):
    """Nodes, refused while they are read if too many, too deep, tagged or holding themselves."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.level = self.count = 0
        self.sizes: dict[
            yaml.Node, int
        ] = {}  # of each node that is whole: how many it is, written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event, before = self.peek_event(), self.count
        self.level, self.count = self.level + 1, self.count + 1
        if getattr(event, "tag", None) is not None:
            raise _TooMuch(
                problem=f"not YAML of a parameter file (tag {event.tag[:60]!r}); take the tag out",
                problem_mark=event.start_mark,
            )
        if self.level > MOST_LEVELS:
            raise _TooMuch(
                problem=(
                    f"nested more than {MOST_LEVELS} deep; want the few levels of params/tour.yaml"
                ),
                problem_mark=event.start_mark,
            )
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            if node not in self.sizes:
                raise _TooMuch(
                    problem="an anchor (&) holds itself (*); write it out",
                    problem_mark=event.start_mark,
                )
            self.count += self.sizes[node]
        if self.count > MOST_NODES:
            raise _TooMuch(
                problem=(
                    f"more than {MOST_NODES:,} settings and entries, with every alias (*) written"
                    " out; want fewer"
                ),
                problem_mark=event.start_mark,
            )
        self.sizes[node] = self.count - before
        self.level -= 1
        return node


def _composed(text: str, origin: str) -> tuple[_Loader, yaml.MappingNode]:
    """The file's one mapping, as nodes, with what constructs values of them.

    Nothing is constructed yet.
    """
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
    except _TooMuch as error:
        raise BadStudy(f"{origin}:{error.problem_mark.line + 1}: {error.problem}") from error
    except yaml.YAMLError as error:
        mark, at = getattr(error, "problem_mark", None), getattr(error, "position", None)
        line = mark.line if mark else None if at is None else text.count("\n", 0, at)
        problem = " ".join(
            str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).split()
        )
        where = origin if line is None else f"{origin}:{line + 1}"
        raise BadStudy(f"{where}: not YAML ({problem[:120]}); mend that line") from error
    if not isinstance(tree, yaml.MappingNode):
        found = "nothing" if tree is None else {"sequence": "a list", "scalar": "a string"}[tree.id]
        raise BadStudy(f"{origin}: holds {found}; want a mapping with name, arch, source and grid")
    return loader, tree


def _lines(tree: yaml.Node, origin: str) -> dict[tuple, int]:
    lines: dict[tuple, int] = {}
    _walk(tree, (), lines, origin)
    return lines


def _walk(node: yaml.Node, at: tuple, lines: dict[tuple, int], origin: str) -> None:
    """Notes the line of every place in the file; refuses a key that stands twice or is no name, and
    a value that YAML reads otherwise than people do."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not (
                isinstance(key, yaml.ScalarNode)
                and key.tag.endswith(":str")
                and _KEY.fullmatch(key.value)
            ):
                shown = repr(key.value)[:60] if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
                raise BadStudy(
                    f"{origin}:{line}: {shown} as a key: YAML reads a {key.tag.rpartition(':')[2]};"
                    " want a setting's name, of letters, digits, _ and -, each written out"
                )
            name = key.value
            if (*at, name) in lines:
                raise BadStudy(f"{origin}:{line}: {name} stands twice; take one of them out")
            lines[(*at, name)] = line
            _walk(value, (*at, name), lines, origin)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*at, i)] = value.start_mark.line + 1
            _walk(value, (*at, i), lines, origin)
    elif problem := _misread(
        node.value, node.tag.rpartition(":")[2], bool(node.style), at == ("title",)
    ):
        raise BadStudy(f"{origin}:{node.start_mark.line + 1}: {'.'.join(map(str, at))}{problem}")


_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_PLAIN = {  # what people and YAML read alike, by what YAML takes it for
    "int": re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    "bool": re.compile(r"true|false", re.I),
    "float": re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.I),
    "null": re.compile(r".*"),
    "str": re.compile(r".*", re.S),
}


def _misread(text: str, kind: str, quoted: bool, lines: bool) -> str | None:
    """What to say of a scalar that YAML 1.1 does not read as it looks; None if all is well. kind:
    what YAML takes it for; lines: whether it may have several."""
    short = text if len(text) <= 40 else f"{text[:40]}..."
    odd = _CONTROL.search(text.replace("\n", "") if lines else text)
    if odd:
        return f"={short!r}: holds the control character {odd[0]!r}; take it out"
    if quoted:
        return None
    if kind not in _PLAIN:
        return (
            f": YAML reads {short} as a {'date' if kind == 'timestamp' else kind}; put a word in"
            " quotes"
        )
    if kind in ("int", "float") and len(text) > MOST_DIGITS + (8 if kind == "float" else 0):
        return f": a number of {len(text):,} characters, {short}; want {MOST_DIGITS} digits at most"
    if not _PLAIN[kind].fullmatch(text):
        value = yaml.safe_load(text)
        shown = str(value).lower() if kind == "bool" else repr(value)
        return (
            f"={value!r}: YAML reads {short} as {shown}; write {shown}, or '{short}' in quotes for"
            " the word"
        )
    if kind in ("int", "float") and text.startswith("-") and yaml.safe_load(text) == 0:
        return f": {short} is a negative zero; write 0"
    return None
