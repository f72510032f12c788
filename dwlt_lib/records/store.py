"""The store: records on the disk, written once and whole, and the studies that they belong to.

A record appears at outputs/records/KIND/ID by one atomic rename, and is the only proof that work is
done. Published studies, each one file, stand in for records that were not made here.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dwlt_lib import files
from dwlt_lib.config.planning import plan, robustness
from dwlt_lib.config.specs import (
    FORMAT,
    Spec,
    TransferSpec,
    columns,
    label,
    record_id,
    upstream,
)
from dwlt_lib.config.studies import Study
from dwlt_lib.records import archive, outcome_files, verification
from dwlt_lib.records.record import Folder, Location, Record, load_record, serialize

COLUMN_ORDER = [
    "kind",
    "pretraining",
    "method",
    "dataset",
    "fraction",
    "regime",
    "rounds",
    "sparsity",
    "seed",
    "images",
    "SA",
    "RA",
]
"""The first columns of a table; others follow."""
INTEGER_COLUMNS = (
    "rounds",
    "seed",
    "theta_seed",
    "mask_seed",
    "subset_seed",
    "epoch",
    "epochs",
    "epochs_run",
    "kept",
    "train_images",
    "validation_images",
    "test_images",
    "images_used",
)
SORT_KEYS = [
    "kind",
    "pretraining",
    "method",
    "dataset",
    "fraction",
    "regime",
    "rounds",
    "seed",
    "theta_seed",
    "mask_seed",
    "subset_seed",
    "images",
    "id",
]


# ----------------------------------------------------------------------------------------------
# where everything lies


def checkout() -> Path:
    """The folder that holds dwlt_lib, notebooks and params.

    Returns:
        An absolute path.
    """
    return Path(__file__).resolve().parents[2]


def outputs() -> Path:
    """The folder of all records and studies.

    Returns:
        DWLT_OUTPUTS, or outputs/ in the checkout, absolute; never the working directory.
    """
    return Path(os.environ.get("DWLT_OUTPUTS") or checkout() / "outputs").resolve()


def study_dir(name: str) -> Path:
    """The folder of a study's executed notebooks, figures and report.

    Args:
        name: of the study.

    Returns:
        Outputs/studies/NAME; it need not exist.
    """
    return outputs() / "studies" / name


def path_of(kind: str, id: str) -> Path:
    """The folder of a record that is made here.

    Args:
        kind: of the record, such as "mask".
        id: of the record, 20 hexadecimal digits.

    Returns:
        Outputs/records/KIND/ID; it need not exist.
    """
    return outputs() / "records" / kind / id


def unfinished_root() -> Path:
    """The folder in which trainings that are under way keep their checkpoints.

    Returns:
        Outputs/records/.partial; it need not exist.
    """
    return outputs() / "records" / ".partial"


def reference_files() -> list[Path]:
    """The files of studies that were published here, and of those that come with the checkout.

    Returns:
        Paths of zip files, those made here first.
    """
    roots = dict.fromkeys([outputs() / "reference", checkout() / "outputs" / "reference"])
    return [path for root in roots for path in sorted(root.glob("[!.]*.zip"))]


def opened_file() -> Path | None:
    """The study's file that is opened, which is read before all else.

    Returns:
        The path that DWLT_STUDY_FILE names; None if it names none.
    """
    path = os.environ.get("DWLT_STUDY_FILE")
    return Path(path) if path else None


def _studies_in_files() -> dict[Path, dict[str, Any]]:
    """What each study's file plans, the opened file first; without those that cannot be read.

    `verify` names what is wrong with the others.
    """
    opened = opened_file()
    found = {}
    for path in [*([opened] if opened else []), *reference_files()]:
        with suppress(ValueError, OSError):
            found[path] = archive.study(path)
    return found


def _study_file(name: str) -> Path | None:
    """The file of the study of that name, if there is one that can be read."""
    studies = _studies_in_files()
    return next((path for path, study in studies.items() if study["name"] == name), None)


def _candidates(id: str) -> list[Location]:
    """Where the record of that id may lie, the first choice first."""
    folders = (outputs() / "records").glob(f"*/{id}/record.json")
    own = [Folder(path.parent) for path in folders]
    opened = opened_file()
    in_opened, in_references = [], []
    for file in _studies_in_files():
        found = archive.locations(file).get(id)
        if found is not None:
            (in_opened if file == opened else in_references).append(found)
    return [*in_opened, *own, *in_references]


def _find(id: str) -> Location | None:
    """Where the record of that id lies: where it can be read, else where it is damaged."""
    candidates = _candidates(id)
    readable = (location for location in candidates if _is_readable(location))
    return next(readable, candidates[0] if candidates else None)


def _is_readable(location: Location) -> bool:
    try:
        load_record(location)
    except (ValueError, OSError):
        return False
    return True


def _is_whole(location: Location) -> bool:
    """Whether record.json is readable and all files are there, each of its size."""
    try:
        sizes = load_record(location).sizes
    except (ValueError, OSError):
        return False
    return all(location.size(name) == size for name, size in sizes.items())


# ----------------------------------------------------------------------------------------------
# writing


def exists(spec: Spec) -> bool:
    """Whether a record was made here, and is whole.

    Args:
        spec: its description.

    Returns:
        What record.json and the sizes of its files tell; their bytes are not read.
    """
    return _is_whole(Folder(path_of(spec.kind, record_id(spec))))


def exists_id(id: str) -> bool:
    """The same as `exists`, for a record of any kind.

    Args:
        id: of the record, 20 hexadecimal digits.

    Returns:
        What record.json and the sizes of its files tell.
    """
    return any(_is_whole(Folder(path)) for path in (outputs() / "records").glob(f"*/{id}"))


def write(  # noqa: PLR0913 (all that a record has)
    spec: Spec,
    metrics: Mapping[str, float],
    history: list[dict[str, float]],
    content: Mapping[str, bytes | Path],
    made: Mapping[str, Any],
    built_on: Mapping[str, str] | None = None,
) -> Path:
    """Write one record: beside its place, then renamed into it.

    If another process was faster, its record stays; what lies there without being a whole record
    gives way.

    Args:
        spec: what the record is of.
        metrics: scalars by name; accuracies in [0, 1].
        history: one dictionary per epoch.
        content: each file by name: its bytes, or a file of this disk, which is moved in.
        made: what is no part of the result (seconds, device, code version...).
        built_on: `results_of` the records that were read; None for what is there now.

    Returns:
        Its folder.
    """
    kind, id = spec.kind, record_id(spec)
    target = path_of(kind, id)
    scratch = files.scratch(target)
    scratch.mkdir(parents=True)
    try:
        for name, data in content.items():
            if isinstance(data, Path):
                os.replace(data, scratch / name)
                files.sync(scratch / name)
            else:
                files.write(scratch / name, data)
        entries = {
            "kind": kind,
            "id": id,
            "label": label(spec),
            "format": FORMAT[kind],
            "columns": columns(spec),
            "metrics": dict(metrics),
            "upstream": [record_id(up) for up in upstream(spec)],
            "built_on": dict(results_of(upstream(spec)) if built_on is None else built_on),
            "files": {name: files.sha256(scratch / name) for name in content},
            "sizes": {name: (scratch / name).stat().st_size for name in content},
            "history": history,
            "made": dict(made),
            "spec": spec.model_dump(mode="json"),
        }
        result_keys = ("kind", "id", "metrics", "files", "history", "built_on")
        result = json.dumps([entries[name] for name in result_keys], sort_keys=True)
        entries["result"] = hashlib.sha256(result.encode()).hexdigest()
        files.write(scratch / "record.json", serialize(entries))
        files.sync(scratch)
        _move_into_place(scratch, target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return target


def results_of(specs: Iterable[Spec]) -> dict[str, str]:
    """The results of records, to be noted in what is made of them.

    Args:
        specs: descriptions of records.

    Returns:
        By id, the digest of the result, of those that are there.
    """
    locations = {id: _find(id) for id in map(record_id, specs)}
    return {id: load_record(location).result for id, location in locations.items() if location}


def _move_into_place(scratch: Path, target: Path) -> None:
    """Rename `scratch` to `target`, unless a whole record is or comes there.

    What else lies there is removed.
    """
    for _ in range(100):  # of several who mend one folder, each goes on until one of them has
        try:
            os.rename(scratch, target)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if _is_whole(Folder(target)):
            break
        broken = files.scratch(target)
        with suppress(FileNotFoundError):  # another one has just moved it
            os.rename(target, broken)
            if broken.is_dir():
                shutil.rmtree(broken, ignore_errors=True)
            else:
                broken.unlink()
    shutil.rmtree(scratch, ignore_errors=True)
    files.sync(target.parent)


# ----------------------------------------------------------------------------------------------
# reading


def read(id: str | Spec) -> Record:
    """The record of that id, made here or in a published study.

    Args:
        id: 20 hexadecimal digits, as the column id of `table` has them; or the record's spec.

    Returns:
        The record, from the opened file, from here or from a published study, in that order.

    Raises:
        KeyError: there is no such record, one line.
        ValueError: it is damaged, one line.

    Example:
        >>> record = read(table("transfer", study="tour_full")["id"].iloc[0])
        >>> 0 <= record.metrics["SA"] <= 1
        True
    """
    id = id if isinstance(id, str) else record_id(id)
    if not re.fullmatch("[0-9a-f]{20}", id):
        raise KeyError(
            f"record {id[:40]!r}: want an id, 20 hexadecimal digits, as records.table() has them"
        )
    location = _find(id)
    if location is None:
        raise KeyError(f"record {id}: not under {outputs()}; run the study that plans it")
    return load_record(location)


def outcomes(record: str | Spec | Record) -> dict[str, np.ndarray]:
    """Which test images a transferred ticket classifies rightly, under each attack.

    SA, RA and every attack's accuracy are the means of these. A record of another kind gives what
    it stores itself: `transfer` of a transfer attack, each attack of a robustness record.

    Args:
        record: a transfer, its id, or its spec.

    Returns:
        bool arrays in the order of the test set. SA and RA, of the selected checkpoint, have
        (test_images,) entries; each attack of the transfer's robustness records, by its name,
        those of the first `count` images that were attacked. worst: the images that are right as
        they are, under RA's attack and under all of these attacks, over the shortest of them.

    Raises:
        KeyError: there is no such record, one line.
        ValueError: it stores no outcomes, or it or a robustness record is damaged; one line.

    Example:
        >>> right = outcomes(table("transfer", study="tour")["id"].iloc[0])  # doctest: +SKIP
        >>> right["SA"].mean(), right["RA"].mean()  # doctest: +SKIP
    """
    record = record if isinstance(record, Record) else read(record)
    return _outcomes(record, _robustness_records())


def outcomes_of(table: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """The `outcomes` of a table's transfers, for `analysis`.

    Args:
        table: has the column id, as `table` gives it.

    Returns:
        `outcomes` by id, without records of other kinds and those that store none, which were made
        by former versions.

    Raises:
        KeyError, ValueError: as `outcomes` and `read` do.
    """
    attacks = _robustness_records()
    records = map(read, table["id"])
    return {
        record.id: _outcomes(record, attacks)
        for record in records
        if record.kind == "transfer" and record.has(outcome_files.FILE)
    }


def _outcomes(record: Record, attacks: Mapping[str, list[Record]]) -> dict[str, np.ndarray]:
    """`outcomes` of one record; attacks: the robustness records by the id of their transfer."""
    if outcome_files.FILE not in record.files:
        raise ValueError(
            f"{record.path}: stores no correctness per image; want a transfer or an attack on one,"
            " made by this version: run its study again"
        )
    if record.kind != "transfer":
        return outcome_files.unpack(record, read(outcome_files.transfer_id(record)))
    own = outcome_files.unpack(record, record)
    found = {"SA": own["SA"], "RA": own["RA"]}
    for attack in attacks.get(record.id, []):
        if attack.built_on.get(record.id) != record.result:
            continue  # of another result, as `verify` says
        for name, right in outcome_files.unpack(attack, record).items():
            before = found.get(name, right)
            n = min(len(before), len(right))
            found[name] = before[:n] & right[:n]
    n = min(map(len, found.values()))
    return {**found, "worst": np.logical_and.reduce([right[:n] for right in found.values()])}


def _robustness_records() -> dict[str, list[Record]]:
    """The records of kind robustness, made here or published, by the id of their transfer."""
    ids = {location.id for location in _locations("robustness", None)}
    for file in _studies_in_files():
        published = archive.locations(file).values()
        ids |= {location.id for location in published if location.kind == "robustness"}
    found: dict[str, list[Record]] = {}
    for record in map(read, sorted(ids)):
        found.setdefault(outcome_files.transfer_id(record), []).append(record)
    return found


# ----------------------------------------------------------------------------------------------
# studies


def study_names() -> list[str]:
    """The studies that were planned here, and those in files.

    Returns:
        Their names, sorted.
    """
    planned = {path.parent.name for path in outputs().glob("studies/*/study.json")}
    return sorted(planned | {study["name"] for study in _studies_in_files().values()})


def study(name: str) -> dict[str, Any]:
    """What a study plans.

    Args:
        name: one of `study_names`.

    Returns:
        name; params, its resolved parameters; ids of all its records; and file, the parameter
        file, if it was read from one here.

    Raises:
        KeyError: there is no such study, or what is noted of it is damaged; one line.
    """
    note = study_dir(name) / "study.json"
    if note.exists() and not _is_opened(name):
        try:
            return archive.parse_study(note.read_bytes())
        except ValueError as error:
            raise KeyError(
                f"study {name!r}: {note} cannot be read ({error}); delete it and run: dwlt"
                f" report params/{name}.yaml"
            ) from None
    file = _study_file(name)
    if file is not None:
        return archive.study(file)
    for path in reference_files():
        if path.stem == name:
            raise KeyError(_why_not(path, name))
    raise KeyError(
        f"study {name!r}: not planned under {outputs()}; want one of {study_names() or 'none yet'},"
        " or run: dwlt run params/NAME.yaml"
    )


def _is_opened(name: str) -> bool:
    """Whether the opened file holds the study of that name."""
    opened = opened_file()
    return opened is not None and _studies_in_files().get(opened, {}).get("name") == name


def _why_not(path: Path, name: str) -> str:
    """Why a study's file does not hold the study that it is named after."""
    try:
        return f"{path}: holds the study {archive.study(path)['name']!r}, not {name!r}"
    except (ValueError, OSError) as error:
        return str(error)


def noted(name: str) -> dict[str, Any]:
    """What `write_study` noted of a study here.

    Args:
        name: of the study.

    Returns:
        Name, file, params and ids; empty if nothing was noted, or the note is damaged.
    """
    try:
        return archive.parse_study((study_dir(name) / "study.json").read_bytes())
    except (ValueError, OSError):
        return {}


def write_study(study: Study, file: Path | None = None) -> None:
    """Note what a study plans, so that its records can be told from others and counted.

    Its strong attacks on tickets that the plan transfers belong to it, too, once they are there.

    Args:
        study: the study.
        file: the parameter file, if it comes from one.
    """
    planned = plan(study)
    tickets = [spec for spec in planned.values() if isinstance(spec, TransferSpec)]
    attacks = [robustness(study, ticket) for ticket in tickets if ticket.keep != "none"]
    more = [record_id(spec) for spec in attacks if exists(spec)]
    content = {
        "name": study.name,
        "file": str(file.resolve()) if file else None,
        "params": study.model_dump(mode="json"),
        "ids": list(dict.fromkeys([*planned, *more])),
    }
    path = study_dir(study.name) / "study.json"
    if noted(study.name) != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps(content, indent=1))


def has_changed(study: Study) -> bool:
    """Whether the study has other parameters now than when it was last planned here.

    Args:
        study: as its parameter file says now.

    Returns:
        False for a study that was never planned here.
    """
    params = noted(study.name).get("params")
    return params is not None and params != study.model_dump(mode="json")


def missing(study_name: str) -> int:
    """How many of a study's records are not there yet.

    Those of a published study are there, although without their weights.

    Args:
        study_name: one of `study_names`.

    Returns:
        A number from 0 on.

    Raises:
        KeyError: there is no such study.
    """
    locations = _locations(None, study_name)
    there = [
        location
        for location in locations
        if not isinstance(location, Folder) or _is_whole(location)
    ]
    return len(study(study_name)["ids"]) - len(there)


def coverage(study_name: str) -> str:
    """How much of a study is there, for a reader.

    Args:
        study_name: one of `study_names`.

    Returns:
        A line such as "3 of 120 records are missing".
    """
    return f"{missing(study_name)} of {len(study(study_name)['ids'])} records are missing"


def published_source(study_name: str) -> str:
    """Whether a study's file stands in for records that were not made here.

    Args:
        study_name: one of `study_names`.

    Returns:
        One line that names the file; "" if all records were made here.
    """
    locations = _locations(None, study_name)
    published = [location.file for location in locations if isinstance(location, archive.ZipFolder)]
    if not published:
        return ""
    own = len(locations) - len(published)
    return (
        f"reading the committed study {_in_checkout(published[0])}: {own or 'none'} of its "
        f"{len(locations)} records {'is' if own == 1 else 'are'} under {_in_checkout(outputs())}"
    )


def _in_checkout(path: Path) -> Path:
    """The path relative to the checkout, if it lies there; a report that is passed on names it."""
    return path.relative_to(checkout()) if path.is_relative_to(checkout()) else path


def _locations(kind: str | None, study_name: str | None) -> list[Location]:
    """Where records lie: all that were made here, or all that there are of one study.

    A study's file stands in for what was not made here; the opened one is read alone.
    """
    own = [
        Folder(path.parent)
        for path in sorted(outputs().glob(f"records/{kind or '*'}/[!.]*/record.json"))
    ]
    if study_name is None:
        return [*own]
    ids = dict.fromkeys(study(study_name)["ids"])
    file = _study_file(study_name)
    found: dict[str, Location] = {} if file is None else {**archive.locations(file)}
    if not _is_opened(study_name):
        found |= {location.id: location for location in own}
    return [found[id] for id in ids if id in found and kind in (None, found[id].kind)]


# ----------------------------------------------------------------------------------------------
# tables


def preview(specs: Iterable[Spec]) -> pd.DataFrame:
    """What is about to be made: one row per record, with its label, its id and whether it exists.

    Args:
        specs: descriptions of records, as `planning.expand` gives them.

    Returns:
        A table with the columns record (the label), id and exists (bool).
    """
    rows = [(label(spec), record_id(spec), exists(spec)) for spec in specs]
    return pd.DataFrame(rows, columns=["record", "id", "exists"])


def summary(ids: Collection[str]) -> pd.DataFrame:
    """The `table` of these records as a notebook shows it.

    Args:
        ids: of records that are there.

    Returns:
        One row per record, sorted; numbers have four decimals, and columns that do not apply to
        these kinds of record are left out. Accuracies are fractions in [0, 1].
    """
    return table(ids=ids).dropna(axis="columns", how="all").round(4)


def table(
    kind: str | None = None,
    study: str | None = None,
    damaged: list[str] | None = None,
    ids: Collection[str] | None = None,
) -> pd.DataFrame:
    """One row per record, sorted: what it is, its metrics, and its id.

    Args:
        kind: pretraining, mask, transfer, surface, trajectory, attack or robustness; None for all.
        study: only the records of that study, published or not; None for all that were made here.
        damaged: receives a line for each record that cannot be read, which is then left out.
        ids: only these records.

    Returns:
        A table whose columns depend on the kinds; accuracies are fractions in [0, 1].

    Raises:
        KeyError: there is no such study.
        ValueError: there is no such kind; or a record cannot be read, and `damaged` is None.

    Example:
        >>> table("transfer", study="tour_full").groupby(["method", "rounds"])["RA"].mean()
    """
    if kind is not None and kind not in FORMAT:
        raise ValueError(f"kind={kind!r}: want one of {', '.join(FORMAT)}, or None for all")
    rows = []
    for location in _locations(kind, study):
        if ids is not None and location.id not in ids:
            continue
        try:
            record = load_record(location)
        except (ValueError, OSError) as error:
            if damaged is None:
                raise ValueError(str(error)) from None
            damaged.append(str(error))
            continue
        rows.append(
            {
                "kind": record.kind,
                **record.columns,
                **record.metrics,
                "id": record.id,
                "seconds": record.made.get("seconds"),
            }
        )
    return _frame(rows)


def empty_table() -> pd.DataFrame:
    """What `table` gives where there are no records.

    Returns:
        No rows; the columns that all kinds have.
    """
    return _frame([])


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    if not rows:
        return pd.DataFrame(columns=[*COLUMN_ORDER, "id", "seconds"])
    frame = pd.DataFrame(rows)
    first = [name for name in COLUMN_ORDER if name in frame]
    frame = frame[[*first, *(name for name in frame if name not in first)]]
    # whole numbers stay whole where records of other kinds have none
    gaps = {name: "Int64" for name in INTEGER_COLUMNS if name in frame and frame[name].hasnans}
    keys = [key for key in SORT_KEYS if key in frame]
    return frame.astype(gaps).sort_values(keys, ignore_index=True, kind="stable")


# ----------------------------------------------------------------------------------------------
# publishing and checking


def publish(study_name: str, tables: Mapping[str, str], report: Path | None = None) -> Path:
    """Copy a study to outputs/reference, to be committed or passed on.

    Its records go, without weights, into one file, NAME.zip; its figures as PNG, the tables and
    the report page into the folder NAME beside it. Earlier ones are replaced.

    Args:
        study_name: one of `study_names`.
        tables: the text of each table, by file name.
        report: the report page, if there is one.

    Returns:
        The study's file.

    Raises:
        KeyError: there is no such study.
        ValueError: one line, if a file of a record is damaged; nothing is written.
    """
    target = outputs() / "reference" / f"{study_name}.zip"
    target.parent.mkdir(parents=True, exist_ok=True)
    # without the path of its parameter file, which lies on this disk alone
    note = {key: value for key, value in study(study_name).items() if key != "file"}
    content = [("study.json", json.dumps(note, indent=1).encode())]
    for location in _locations(None, study_name):
        record, folder = load_record(location), f"{location.kind}/{location.id}"
        content.append((f"{folder}/record.json", location.read("record.json")))
        for name in archive.PUBLISHED:
            if name in record.files:
                content.append((f"{folder}/{name}", record.read(name)))
    archive.write(target, content)
    _publish_pages(study_name, target.with_suffix(""), tables, report)
    return target


def _publish_pages(
    study_name: str, target: Path, tables: Mapping[str, str], report: Path | None
) -> None:
    """Tables, figures and report of a study in a folder that replaces an older one whole."""
    scratch = files.scratch(target)
    (scratch / "figures").mkdir(parents=True)
    for name, text in tables.items():
        files.write(scratch / name, text)
    for figure in (study_dir(study_name) / "figures").glob("*.png"):
        shutil.copyfile(figure, scratch / "figures" / figure.name)
    if report is not None:
        shutil.copyfile(report, scratch / "report.html")
    shutil.rmtree(target, ignore_errors=True)
    os.rename(scratch, target)


def verify() -> list[str]:
    """What is wrong with the records and the studies' files under outputs, one line each.

    A file that DWLT_STUDY_FILE names is checked, too.

    Returns:
        A line for each record that is damaged, incomplete or misplaced, for all that builds on one
        of those or on another result than the one that is there, and for each study's file that
        cannot be read; empty if nothing is wrong.
    """
    folders = sorted(outputs().glob("records/[!.]*/[!.]*"))
    lines = verification.problems_of(map(Folder, folders))
    opened = opened_file()
    own = [path for path in reference_files() if path.is_relative_to(outputs())]
    for path in [*([opened] if opened else []), *own]:
        try:
            _ = archive.study(path)
            lines += verification.problems_of(archive.locations(path).values())
        except ValueError as error:
            lines.append(str(error))
    return lines
