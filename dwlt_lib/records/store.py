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
import secrets
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dwlt_lib import files
from dwlt_lib.config.planning import plan, robustness
from dwlt_lib.config.specs import FORMAT, Spec, TransferSpec, columns, label, record_id, upstream
from dwlt_lib.config.studies import Study
from dwlt_lib.records import archive, leases, outcome_files, verification
from dwlt_lib.records.archive import Location
from dwlt_lib.records.record import Record, load_record, serialize

LEVEL = ["kind", "pretraining", "method", "dataset", "fraction", "regime", "rounds"]
COLUMN_ORDER = [*LEVEL, "sparsity", "seed", "images", "SA", "RA"]
"""The first columns of a table; others follow."""
SORT_KEYS = [*LEVEL, "seed", "theta_seed", "mask_seed", "subset_seed", "images", "id"]


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


def leases_root() -> Path:
    """The folder of the leases of processes that are making records.

    Returns:
        Outputs/records/.leases; it need not exist.
    """
    return outputs() / "records" / ".leases"


def reference_files() -> list[Path]:
    """The files of studies that were published here, and of those that come with the checkout.

    Returns:
        Paths of zip files, those made here first.
    """
    roots = dict.fromkeys([outputs() / "reference", checkout() / "outputs" / "reference"])
    return [path for root in roots for path in sorted(root.glob("[!.]*.zip"))]


def _published() -> list[archive.StudyFile]:
    """The studies' files that can be read; `verify` names what is wrong with the others."""
    found = []
    for path in reference_files():
        with suppress(ValueError, OSError):
            found.append(archive.opened(path))
    return found


def _place(kind: str, id: str) -> Location:
    """Where a record that is made here lies, whether it is there or not."""
    return Location(outputs() / "records", kind, id)


def _find(id: str) -> Location | None:
    """Where the record of that id lies: where it can be read, else where it is damaged."""
    own = [_place(path.parts[-3], id) for path in outputs().glob(f"records/*/{id}/record.json")]
    published = [file.records[id] for file in _published() if id in file.records]
    candidates = [*own, *published]
    for location in candidates:
        with suppress(ValueError, OSError):
            load_record(location)
            return location
    return candidates[0] if candidates else None


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
    return _is_whole(_place(spec.kind, record_id(spec)))


def exists_id(id: str) -> bool:
    """The same as `exists`, for a record of any kind.

    Args:
        id: of the record, 20 hexadecimal digits.

    Returns:
        What record.json and the sizes of its files tell.
    """
    return any(_is_whole(_place(kind, id)) for kind in FORMAT)


def write(  # noqa: PLR0913 (all that a record has)
    spec: Spec,
    metrics: Mapping[str, float],
    history: list[dict[str, float]],
    content: Mapping[str, bytes | Path],
    made: Mapping[str, Any],
    built_on: Mapping[str, str] | None = None,
    lease: leases.Lease | None = None,
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
        lease: this process's lease on it, which is renewed before the renaming.

    Returns:
        Its folder.

    Raises:
        LostLease: another process has taken the record over; nothing is left of this one's.
    """
    place = _place(spec.kind, record_id(spec))
    scratch = files.scratch(place.path)
    scratch.mkdir(parents=True)
    try:
        for name, data in content.items():
            if isinstance(data, Path):
                os.replace(data, scratch / name)
                files.sync(scratch / name)
            else:
                files.write(scratch / name, data)
        entries = {
            "kind": place.kind,
            "id": place.id,
            "label": label(spec),
            "format": FORMAT[place.kind],
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
        if lease is not None:
            lease.renew()
        _move_into_place(scratch, place)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return place.path


def results_of(specs: Iterable[Spec]) -> dict[str, str]:
    """The results of records, to be noted in what is made of them.

    Args:
        specs: descriptions of records.

    Returns:
        By id, the digest of the result, of those that are there.
    """
    locations = {id: _find(id) for id in map(record_id, specs)}
    return {id: load_record(location).result for id, location in locations.items() if location}


def _move_into_place(scratch: Path, place: Location) -> None:
    """Rename `scratch` to its place, unless a whole record is or comes there.

    What else lies there is removed.
    """
    while True:
        try:
            os.rename(scratch, place.path)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if _is_whole(place):
            break
        broken = files.scratch(place.path)
        with suppress(FileNotFoundError):  # another one has just moved it
            os.rename(place.path, broken)
            files.remove(broken)
    shutil.rmtree(scratch, ignore_errors=True)
    files.sync(place.path.parent)


# ----------------------------------------------------------------------------------------------
# reading


def read(id: str | Spec) -> Record:
    """The record of that id, made here or in a published study.

    Args:
        id: 20 hexadecimal digits, as the column id of `table` has them; or the record's spec.

    Returns:
        The record, from here or else from a published study.

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
    for file in _published():
        ids |= {id for id, location in file.records.items() if location.kind == "robustness"}
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
    return sorted(planned | {file.study["name"] for file in _published()})


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
    if note.exists():
        try:
            return archive.parse_study(note.read_bytes())
        except ValueError as error:
            raise KeyError(
                f"study {name!r}: {note} cannot be read ({error}); delete it and run: dwlt"
                f" report params/{name}.yaml"
            ) from None
    file = _study_file(name)
    if file is not None:
        return file.study
    for path in reference_files():
        if path.stem == name:
            try:
                archive.opened(path)
            except (ValueError, OSError) as error:
                raise KeyError(str(error)) from None
    raise KeyError(
        f"study {name!r}: not planned under {outputs()}; want one of {study_names() or 'none yet'},"
        " or run: dwlt run params/NAME.yaml"
    )


def _study_file(name: str) -> archive.StudyFile | None:
    """The file of the study of that name, if there is one that can be read."""
    return next((file for file in _published() if file.study["name"] == name), None)


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


def write_study(study: Study, file: Path | None = None, asked: Study | None = None) -> None:
    """Note what a study plans, so that its records can be told from others and counted.

    Its strong attacks on tickets that the plan transfers belong to it, too, once they are there.

    Args:
        study: the study.
        file: the parameter file, if it comes from one.
        asked: the part of it that is asked for so far (`execution.adaptive`); None: all of it.
    """
    asked = asked or study
    attacks = [id for id, spec in _attacks(asked).items() if exists(spec)]
    content = {
        "name": study.name,
        "file": str(file.resolve()) if file else None,
        "params": study.model_dump(mode="json"),
        "ids": list(dict.fromkeys([*plan(asked), *attacks])),
    }
    path = study_dir(study.name) / "study.json"
    if noted(study.name) != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps(content, indent=1))


def _attacks(study: Study) -> dict[str, Spec]:
    """The strong attacks on all tickets of the study whose weights are kept, by id."""
    tickets = [spec for spec in plan(study).values() if isinstance(spec, TransferSpec)]
    attacks = [robustness(study, ticket) for ticket in tickets if ticket.keep != "none"]
    return {record_id(spec): spec for spec in attacks}


def has_changed(study: Study) -> bool:
    """Whether the study asks for other records now than when it was last planned here.

    Args:
        study: as its parameter file says now.

    Returns:
        False for a study that was never planned here.
    """
    before, now = set(noted(study.name).get("ids", ())), set(plan(study))
    is_whole = study.search == "adaptive" or now <= before
    return bool(before) and not (is_whole and before <= now | set(_attacks(study)))


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
    there = [location for location in locations if location.published or _is_whole(location)]
    return len(study(study_name)["ids"]) - len(there)


def ids_there(study_name: str) -> list[str]:
    """Which of a study's records are there, by their names alone: quick, and unchecked.

    Args:
        study_name: one of `study_names`.

    Returns:
        Their ids, in the order of the plan.

    Raises:
        KeyError: there is no such study.
    """
    return [location.id for location in _locations(None, study_name)]


def coverage(study_name: str) -> str:
    """How much of a study is there, for a reader.

    Args:
        study_name: one of `study_names`.

    Returns:
        A line such as "3 of 120 records are missing".
    """
    return f"{missing(study_name)} of {len(study(study_name)['ids'])} records are missing"


def differences(*study_names: str) -> pd.DataFrame | None:
    """The settings in which studies differ.

    Args:
        *study_names: of `study_names`; "" names none.

    Returns:
        A row per setting and a column per study, as text, data sets apart that not all have; None
        if fewer than two studies are named.

    Raises:
        KeyError: there is no such study.
    """
    names = [name for name in study_names if name]
    if len(names) < 2:  # noqa: PLR2004 (nothing to compare)
        return None
    params = {name: study(name)["params"] for name in names}
    shared = set.intersection(*(set(own.get("data", {})) for own in params.values()))
    settings = {}
    for name, own in params.items():
        own = {key: own[key] for key in own if key not in ("name", "title")}
        own["data"] = {key: own["data"][key] for key in shared}
        settings[name] = pd.Series(_settings(own), dtype=object)
    table = pd.DataFrame(settings).fillna("")
    return table[table.nunique(axis="columns") > 1].rename_axis("setting")


def _settings(value: Any, key: str = "") -> dict[str, str]:
    """Parameters without their nesting: {"transfer.AT.epochs": "10"}."""
    if isinstance(value, Mapping):
        parts = [(f"{key}.{name}" if key else name, part) for name, part in value.items()]
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        parts = [(f"{key} {i}", part) for i, part in enumerate(value, 1)]
    elif isinstance(value, list):
        return {key: ", ".join(map(str, value))}
    else:
        return {} if value is None else {key: str(value)}
    return {name: text for path, part in parts for name, text in _settings(part, path).items()}


def figures_dir(study_name: str, other: str = "") -> Path:
    """The folder of a study's figures, or of those in which it is compared with another.

    Args:
        study_name: of the study.
        other: of the other study; "" for none.

    Returns:
        Outputs/studies/NAME/figures or figures_with_OTHER; it need not exist.
    """
    return study_dir(study_name) / (f"figures_with_{other}" if other else "figures")


def published_source(study_name: str) -> str:
    """Whether a study's file stands in for records that were not made here.

    Args:
        study_name: one of `study_names`.

    Returns:
        One line that names the file; "" if all records were made here.
    """
    locations = _locations(None, study_name)
    published = [location for location in locations if location.published]
    if not published:
        return ""
    file = _in_checkout(published[0].root)
    own = len(locations) - len(published) or "none"
    return (
        f"reading the committed study {file}: {own} of its {len(locations)} records are under"
        f" {_in_checkout(outputs())}"
    )


def _in_checkout(path: Path) -> Path:
    """The path relative to the checkout, if it lies there; a report that is passed on names it."""
    return path.relative_to(checkout()) if path.is_relative_to(checkout()) else path


def _locations(kind: str | None, study_name: str | None) -> list[Location]:
    """Where records lie: all that were made here, or all that there are of one study.

    A study's file stands in for what was not made here.
    """
    paths = sorted(outputs().glob(f"records/{kind or '*'}/[!.]*/record.json"))
    own = [_place(*path.parts[-3:-1]) for path in paths]
    if study_name is None:
        return own
    file = _study_file(study_name)
    found = {**file.records} if file else {}
    found |= {location.id: location for location in own}
    ids = dict.fromkeys(study(study_name)["ids"])
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
    study: str | Sequence[str] | None = None,
    damaged: list[str] | None = None,
    ids: Collection[str] | None = None,
) -> pd.DataFrame:
    """One row per record, sorted: what it is, its metrics, and its id.

    Args:
        kind: pretraining, mask, transfer, surface, trajectory, attack or robustness; None for all.
        study: only the records of that study, published or not; None for all that were made here.
            Of several studies each is read, empty names apart, and a column study says whose a
            row is.
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
    if study is not None and not isinstance(study, str):
        names = [name for name in study if name]
        parts = [table(kind, name, damaged, ids).assign(study=name) for name in names]
        found = pd.concat([part for part in parts if len(part)] or parts)
        return found.reset_index(drop=True).astype({"study": pd.CategoricalDtype(names)})
    rows, chosen = [], None if ids is None else set(ids)
    for location in _locations(kind, study):
        if chosen is not None and location.id not in chosen:
            continue
        try:
            record = load_record(location)
        except (ValueError, OSError) as error:
            if damaged is None:
                raise ValueError(str(error)) from None
            damaged.append(str(error))
            continue
        last = {"id": record.id, "seconds": record.made.get("seconds")}
        rows.append({"kind": record.kind, **record.columns, **record.metrics, **last})
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
    frame = pd.DataFrame(rows, dtype=object)
    gaps = [name for name in frame if _is_whole_with_gaps(frame[name])]
    first = [name for name in COLUMN_ORDER if name in frame]
    others = [name for name in frame if name not in first]
    frame = frame[[*first, *others]].astype(dict.fromkeys(gaps, "Int64")).infer_objects()
    keys = [key for key in SORT_KEYS if key in frame]
    return frame.sort_values(keys, ignore_index=True, kind="stable")


def _is_whole_with_gaps(column: pd.Series) -> bool:
    """Whether it holds whole numbers, which stay whole although other kinds have none."""
    found = column.dropna()
    return 0 < len(found) < len(column) and all(isinstance(value, int) for value in found)


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

    Returns:
        A line for each record that is damaged, incomplete or misplaced, for all that builds on one
        of those or on another result than the one that is there, and for each study's file that
        cannot be read; empty if nothing is wrong.
    """
    lines = [problem.line for problem in _problems()]
    for path in reference_files():
        try:
            if path.is_relative_to(outputs()):
                problems = verification.problems_of(archive.opened(path).records.values())
                lines += [problem.line for problem in problems]
        except ValueError as error:
            lines.append(str(error))
    return lines


def repair() -> list[Path]:
    """Set aside what `verify` names of the records made here, and with it all that builds on it.

    Nothing is deleted; a run of its study makes the records again.

    Returns:
        Where each was moved, under outputs/records/.aside.
    """
    moved = []
    for place in dict.fromkeys(problem.location for problem in _problems()):
        target = place.root / ".aside" / place.kind / f"{place.id}-{secrets.token_hex(4)}"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(place.path, target)
        moved.append(target)
    return moved


def _problems() -> list[verification.Problem]:
    """What is wrong with the records made here."""
    folders = sorted(outputs().glob("records/[!.]*/[!.]*"))
    return verification.problems_of([_place(*folder.parts[-2:]) for folder in folders])
