"""Records: one small, self-describing, immutable result each, on disk; the only proof that work is
done.

outputs/records/KIND/ID/record.json describes; .safetensors files beside it hold arrays; record.json
has every file's sha256, its own, and the digests of the results that it was built on. A record
appears by one atomic rename, whole or not at all, and what is read of it is checked first.
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
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load

from dwlt_lib import files
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import FORMAT, Spec, columns, label, record_id, upstream
from dwlt_lib.config.studies import Study
from dwlt_lib.records import archive

# the order of a table's columns; others follow
ORDER = [
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
WHOLE = (
    "rounds",
    "seed",
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
KEYS = [
    "kind",
    "pretraining",
    "method",
    "dataset",
    "fraction",
    "regime",
    "rounds",
    "seed",
    "images",
    "id",
]


@dataclass(frozen=True)
class Record:
    """One record. spec: its resolved description, nested; metrics: scalars; history: one dict an
    epoch; files, sizes: sha256 and bytes by name; built_on: {upstream id: its result}; result: a
    digest of what was found here, without when and where it was made."""

    kind: str
    id: str
    path: Path
    spec: dict[str, Any]
    upstream: list[str]
    columns: dict[str, Any]
    metrics: dict[str, float]
    history: list[dict[str, float]]
    made: dict[str, Any]
    files: dict[str, str]
    sizes: dict[str, int]
    built_on: dict[str, str]
    result: str

    def file(self, name: str) -> Path:
        """The path of one of its files on the disk, which is as it was written.

        Args:
            name: such as "weights.safetensors".
        Raises:
            ValueError: one line; also of a record in a study's file, whose weights stayed behind.
        """
        if problem := self.problem(name):
            raise ValueError(problem)
        return self.path / name

    def read(self, name: str) -> bytes:
        """The bytes of one of its files, on the disk or in a study's file, as they were written.

        Args:
            name: such as "mask.safetensors".
        Raises:
            ValueError: one line, if the record has no such file, or it is missing or changed.
        """
        if problem := self.problem(name):
            raise ValueError(problem)
        return _bytes(self.path / name)

    def problem(self, name: str) -> str | None:
        """What is wrong with one of its files, in one line, if anything is."""
        file = self.path / name
        if name not in self.files:
            return (
                f"{file}: the record holds no such file; it has {', '.join(self.files) or 'none'}"
            )
        try:
            if _in_archive(file):
                digest = hashlib.sha256(_bytes(file)).hexdigest()
            else:
                digest = files.sha256(file) if file.is_file() else ""
        except (ValueError, OSError):
            digest = ""
        if digest == self.files[name]:
            return None
        return f"{file}: missing or changed since it was written; {_remedy(self.path)}"

    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers too many for JSON (surfaces, trajectories), by name; empty if it has none."""
        name = "arrays.safetensors"
        return load(self.read(name)) if name in self.files else {}


def checkout() -> Path:
    """The folder that holds dwlt_lib, notebooks and params."""
    return Path(__file__).resolve().parents[2]


def outputs() -> Path:
    """DWLT_OUTPUTS, or outputs/ in the checkout; never the working directory."""
    return Path(os.environ.get("DWLT_OUTPUTS") or checkout() / "outputs").resolve()


def study_dir(name: str) -> Path:
    """Where a study's executed notebooks, figures and report lie."""
    return outputs() / "studies" / name


def _references() -> list[Path]:
    """The files of studies: the one that DWLT_STUDY_FILE names, those that were published here, and
    those that come with the checkout; of the latter whichever can be read."""
    roots = dict.fromkeys([outputs() / "reference", checkout() / "outputs" / "reference"])
    found = [path for root in roots for path in sorted(root.glob("*.zip"))]
    opened = os.environ.get("DWLT_STUDY_FILE")
    own = [Path(opened)] if opened else []
    return own + [path for path in found if _is_study(path)]


def _is_study(path: Path) -> bool:
    try:
        return bool(archive.study(path))
    except (ValueError, OSError):
        return False


def _in_archive(path: Path) -> bool:
    """Whether a path leads into a study's file: FILE.zip/KIND/ID/NAME, or FILE.zip/KIND/ID."""
    return any(parent.suffix == ".zip" and parent.is_file() for parent in path.parents)


def _bytes(path: Path) -> bytes:
    """A file's bytes, on the disk or in a study's file."""
    for parent in path.parents:
        if parent.suffix == ".zip" and parent.is_file():
            return archive.read(parent, path.relative_to(parent).as_posix())
    return path.read_bytes()


def path_of(kind: str, id: str) -> Path:
    return outputs() / "records" / kind / id


def unfinished_root() -> Path:
    """Where trainings that are under way leave what they have (`unfinished`)."""
    return outputs() / "records" / ".partial"


def exists(spec: Spec) -> bool:
    """Whether the record is there and whole, as far as record.json and its files' sizes tell."""
    return _is_whole(path_of(spec.kind, record_id(spec)))


def exists_id(id: str) -> bool:
    """The same of a record of any kind, by its id."""
    return any(map(_is_whole, (outputs() / "records").glob(f"*/{id}")))


def _is_whole(path: Path) -> bool:
    try:
        record = _load(path)
        return all((path / name).stat().st_size == size for name, size in record.sizes.items())
    except (ValueError, OSError):
        return False


# ----------------------------------------------------------------------------------------------
# writing


def write(
    spec: Spec,
    metrics: Mapping[str, float],
    history: list[dict[str, float]],
    content: Mapping[str, bytes | Path],
    made: Mapping[str, Any],
    built_on: Mapping[str, str] | None = None,
) -> Path:
    """One record, once: written aside, then renamed into place. If another process was faster, its
    record stays; what lies there without being a whole record gives way.

    content: {file name: its bytes, or a file of this disk, which is moved in}; made: what is no
    part of the result (seconds, device, code version...); built_on: `results_of` what was read,
    None for what is there now.
    """
    kind, id = spec.kind, record_id(spec)
    target = path_of(kind, id)
    aside = files.scratch(target)
    aside.mkdir(parents=True)
    try:
        for name, data in content.items():
            if isinstance(data, Path):
                os.replace(data, aside / name)
                files.sync(aside / name)
            else:
                files.write(aside / name, data)
        found = {
            "kind": kind,
            "id": id,
            "label": label(spec),
            "format": FORMAT[kind],
            "columns": columns(spec),
            "metrics": dict(metrics),
            "upstream": [record_id(up) for up in upstream(spec)],
            "built_on": dict(results_of(upstream(spec)) if built_on is None else built_on),
            "files": {name: files.sha256(aside / name) for name in content},
            "sizes": {name: (aside / name).stat().st_size for name in content},
            "history": history,
            "made": dict(made),
            "spec": spec.model_dump(mode="json"),
        }
        what = [found[name] for name in ("kind", "id", "metrics", "files", "history", "built_on")]
        found["result"] = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        files.write(aside / "record.json", _sealed(found))
        files.sync(aside)
        _into_place(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return target


def results_of(specs: Iterable[Spec]) -> dict[str, str]:
    """{id: the digest of what was found} of those of these records that are there."""
    return {id: read(id).result for id in map(record_id, specs) if _folder(id)}


def _into_place(aside: Path, target: Path) -> None:
    """Renames `aside` to `target`, unless a whole record is or comes there.

    What else lies there goes.
    """
    for _ in range(100):  # of several who mend one folder, each goes on until one of them has
        try:
            os.rename(aside, target)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if _is_whole(target):
            break
        broken = files.scratch(target)
        with suppress(FileNotFoundError):  # another one has just moved it
            os.rename(target, broken)
            if broken.is_dir():
                shutil.rmtree(broken, ignore_errors=True)
            else:
                broken.unlink()
    shutil.rmtree(aside, ignore_errors=True)
    files.sync(target.parent)


SEAL = ',\n "digest": "'


def _sealed(found: Mapping[str, Any]) -> str:
    """record.json's text, which ends with the sha256 of all that stands before."""
    text = json.dumps(found, indent=1)[:-2]
    return f'{text}{SEAL}{hashlib.sha256(text.encode()).hexdigest()}"\n}}'


# ----------------------------------------------------------------------------------------------
# reading


def _load(path: Path) -> Record:
    """The record in that folder.

    FileNotFoundError if it has no record.json, ValueError, one line, if it is damaged.
    """
    stamped = path.parents[1] if _in_archive(path) else path / "record.json"
    return _loaded(path, files.stamp(stamped))


@cache
def _loaded(path: Path, stamp: tuple[int, ...]) -> Record:
    data = _bytes(path / "record.json")
    text, _, seal = data.rpartition(SEAL.encode())
    names = (
        "kind",
        "id",
        "spec",
        "upstream",
        "columns",
        "metrics",
        "history",
        "made",
        "files",
        "sizes",
        "built_on",
        "result",
    )
    if seal != f'{hashlib.sha256(text).hexdigest()}"\n}}'.encode():
        raise ValueError(f"{path / 'record.json'}: {_what_is_wrong(data)}; {_remedy(path)}")
    found = json.loads(data)
    if (found["kind"], found["id"]) != (path.parent.name, path.name):
        raise ValueError(
            f"{path}: says it is {found['kind']} {found['id']}; move it there, or {_remedy(path)}"
        )
    return Record(path=path, **{name: found[name] for name in names})


def _what_is_wrong(data: bytes) -> str:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        return f"cannot be read ({str(error).splitlines()[0]})"
    if not isinstance(found, dict) or "digest" not in found:
        return "is not what records.write wrote"
    return "changed since it was written" if "built_on" in found else "of a former version"


def _remedy(path: Path) -> str:
    if _in_archive(path):
        return f"bring {path.parents[1]} again, or publish it anew"
    return f"delete {path} and run its study again"


def _folder(id: str) -> Path | None:
    """Where the record of that id lies: in outputs/records, or else in a committed reference."""
    found = [file.parent for file in (outputs() / "records").glob(f"*/{id}/record.json")]
    for file in _references():
        names = archive.record_names(file)
        if id in names:
            found.append(file / names[id])
    return next((path for path in found if _is_read(path)), found[0] if found else None)


def _is_read(path: Path) -> bool:
    try:
        return bool(_load(path))
    except (ValueError, OSError):
        return False


def read(id: str | Spec) -> Record:
    """The record of that id, in outputs/records or in a committed reference.

    Raises KeyError if there is none, ValueError if it is damaged, each of one line.
    """
    id = id if isinstance(id, str) else record_id(id)
    if not re.fullmatch("[0-9a-f]{20}", id):
        raise KeyError(
            f"record {id[:40]!r}: want an id, 20 hexadecimal digits, as records.table() has them"
        )
    path = _folder(id)
    if path is None:
        raise KeyError(f"record {id}: not under {outputs()}; run the study that plans it")
    return _load(path)


def study_names() -> list[str]:
    """Studies that were planned here, and the committed references."""
    found = {path.parent.name for path in outputs().glob("studies/*/study.json")}
    return sorted(found | {archive.study(path)["name"] for path in _references()})


def study(name: str) -> dict[str, Any]:
    """What a study plans: name, params (its resolved parameters), ids (of all its records) and file
    (where they were read from, if they were)."""
    path = study_dir(name) / "study.json"
    if path.exists():
        try:
            found = json.loads(path.read_bytes())
            wanted = {"name": str, "params": dict, "ids": list}
            if not isinstance(found, dict) or not all(
                isinstance(found.get(key), kind) for key, kind in wanted.items()
            ):
                raise ValueError("it is not what records.write_study wrote")
            return found
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            raise KeyError(
                f"study {name!r}: {path} cannot be read ({reason}); delete it and run: dwlt"
                f" report params/{name}.yaml"
            ) from None
    for file in _references():
        if (found := archive.study(file))["name"] == name:
            return found
    raise KeyError(
        f"study {name!r}: not planned under {outputs()}; want one of {study_names() or 'none yet'},"
        " or run: dwlt run params/NAME.yaml"
    )


def noted(name: str) -> dict[str, Any]:
    """What `write_study` noted here of the study of that name.

    Empty if it was never planned here, or is damaged.
    """
    try:
        return study(name) if (study_dir(name) / "study.json").exists() else {}
    except KeyError:
        return {}


def write_study(found: Study, file: Path | None = None) -> None:
    """Notes what the study plans, so that figures can tell its records from others and say how many
    are missing.

    file: the parameter file, if it comes from one.
    """
    content = {
        "name": found.name,
        "file": str(file.resolve()) if file else None,
        "params": found.model_dump(mode="json"),
        "ids": list(plan(found)),
    }
    path = study_dir(found.name) / "study.json"
    if noted(found.name) != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps(content, indent=1))


def has_changed(found: Study) -> bool:
    """Whether the study's file has other parameters than when the study was last planned here."""
    params = noted(found.name).get("params")
    return params is not None and params != found.model_dump(mode="json")


def missing(study_name: str) -> int:
    """How many of a study's records are not there yet; those of a committed study are, although
    without their weights."""
    own = outputs() / "records"
    there = [
        path for path in _paths(None, study_name) if path.parent.parent != own or _is_whole(path)
    ]
    return len(study(study_name)["ids"]) - len(there)


def coverage(study_name: str) -> str:
    """How much of a study is there, for a reader: "3 of 120 records are missing"."""
    return f"{missing(study_name)} of {len(study(study_name)['ids'])} records are missing"


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


def where(study_name: str) -> str:
    """A line if a committed study stands in for records that are not under outputs(), else ""."""
    paths = _paths(None, study_name)
    folders = [path.parents[1] for path in paths if _in_archive(path)]
    if not folders:
        return ""
    own = len(paths) - len(folders)
    return (
        f"reading the committed study {_shown(folders[0])}: {own or 'none'} of its {len(paths)} "
        f"records {'is' if own == 1 else 'are'} under {_shown(outputs())}"
    )


def _shown(path: Path) -> Path:
    """A path as a reader of the checkout knows it."""
    return path.relative_to(checkout()) if path.is_relative_to(checkout()) else path


def table(
    kind: str | None = None,
    study: str | None = None,
    damaged: list[str] | None = None,
    ids: Collection[str] | None = None,
) -> pd.DataFrame:
    """One row a record (of `kind`; of `study`; of `ids`), sorted: what it is and its metrics.
    Accuracies are in 0..1.

    A record that cannot be read is a ValueError of one line; with `damaged`, that line is added
    there and the rest is returned.
    """
    if kind is not None and kind not in FORMAT:
        raise ValueError(f"kind={kind!r}: want one of {', '.join(FORMAT)}, or None for all")
    rows = []
    for path in _paths(kind, study):
        if ids is not None and path.name not in ids:
            continue
        try:
            record = _load(path)
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
    """What `table` gives where there are no records."""
    return _frame([])


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    if not rows:
        return pd.DataFrame(columns=[*ORDER, "id", "seconds"])
    found = pd.DataFrame(rows)
    found = found[
        [*(name for name in ORDER if name in found), *(name for name in found if name not in ORDER)]
    ]
    gaps = {name: "Int64" for name in WHOLE if name in found and found[name].isna().any()}
    found = found.astype(gaps)  # whole numbers stay whole where other kinds have none
    return found.sort_values(
        [key for key in KEYS if key in found], ignore_index=True, kind="stable"
    )


def _paths(kind: str | None, study_name: str | None) -> list[Path]:
    """Folders of records that are there: all, or those a study plans.

    A reference stands in where it has them.
    """
    if study_name is None:
        return sorted(
            path.parent for path in outputs().glob(f"records/{kind or '*'}/[!.]*/record.json")
        )
    ids = dict.fromkeys(study(study_name)["ids"])
    found = {}
    for file in _references():
        if archive.study(file)["name"] == study_name:
            for id, name in archive.record_names(file).items():
                if id in ids and name.startswith(kind or ""):
                    found[id] = file / name
    for path in (outputs() / "records").glob(f"{kind or '*'}/*/record.json"):
        if path.parent.name in ids:
            found[path.parent.name] = path.parent
    return [found[id] for id in ids if id in found]


def publish(study_name: str, tables: Mapping[str, str], report: Path | None = None) -> Path:
    """Copy a study to outputs/reference, to be committed.

    Its records go, without weights, into one file, NAME.zip; its figures as PNG, the tables and
    the report page into the folder NAME beside it, which replaces an older one whole.

    Args:
        study_name: of a study that was planned here, or of a study's file.
        tables: the text of each table, by file name.
        report: the report page, if there is one.
    Returns:
        The study's file.
    Raises:
        ValueError: one line, if a file of a record is damaged.
    """
    target = outputs() / "reference" / f"{study_name}.zip"
    target.parent.mkdir(parents=True, exist_ok=True)
    noted_here = {key: value for key, value in study(study_name).items() if key != "file"}
    content = [("study.json", json.dumps(noted_here, indent=1).encode())]
    for path in _paths(None, study_name):
        record, within = _load(path), f"{path.parent.name}/{path.name}"
        content.append((f"{within}/record.json", _bytes(path / "record.json")))
        content += [
            (f"{within}/{name}", record.read(name))
            for name in ("mask.safetensors", "arrays.safetensors")
            if name in record.files
        ]
    archive.write(target, content)
    folder = target.with_suffix("")
    scratch = files.scratch(folder)
    scratch.mkdir()
    for figure in sorted((study_dir(study_name) / "figures").glob("*.png")):
        (scratch / "figures").mkdir(exist_ok=True)
        shutil.copyfile(figure, scratch / "figures" / figure.name)
    for name, text in tables.items():
        files.write(scratch / name, text)
    if report is not None:
        shutil.copyfile(report, scratch / "report.html")
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(scratch, folder)
    return target


def verify() -> list[str]:
    """What is wrong with the records on disk and in the studies' files, one line each.

    Returns:
        A line for each record that is damaged, incomplete or misplaced, for all that builds on one
        of those or on another result than the one that is there, and for each study's file that
        cannot be read; empty if nothing is wrong.
    """
    problems: dict[str, list[str]] = {}
    sound: dict[str, Record] = {}
    for path in _folders():
        try:
            record = _load(path)
            found = [problem for name in record.files if (problem := record.problem(name))]
            sound[path.name] = record
        except OSError as error:
            found = [
                f"{path}: has no record.json that can be read ({error.strerror}); {_remedy(path)}"
            ]
        except ValueError as error:
            found = [str(error)]
        problems.setdefault(path.name, []).extend(found)
    own, dependent = [line for found in problems.values() for line in found], []
    for id in _before(sound):
        for up in sound[id].upstream:
            if problem := _broken_link(sound[id], up, problems, sound):
                problems[id].append(problem)
                dependent.append(problem)
    return own + dependent + [line for file in _archives() for line in _verify_archive(file)]


def _archives() -> list[Path]:
    """Every study's file, also one that cannot be read."""
    return sorted({*(outputs() / "reference").glob("*.zip"), *_references()})


def _verify_archive(file: Path) -> list[str]:
    try:
        names = [*archive.record_names(file).values()] if archive.study(file) else []
    except (ValueError, OSError) as error:
        return [str(error)]
    found = []
    for name in names:
        try:
            record = _load(file / name)
        except (ValueError, OSError) as error:
            found.append(str(error))
            continue
        kept = [name for name in record.files if name in ("mask.safetensors", "arrays.safetensors")]
        found += [problem for name in kept if (problem := record.problem(name))]
    return found


def _broken_link(
    record: Record, up: str, problems: Mapping[str, list[str]], sound: Mapping[str, Record]
) -> str | None:
    """Why what a record builds on is not what it was made of, in one line, if it is not."""
    if up not in problems:
        what = "is not there"
    elif problems[up]:
        what = "is damaged, or builds on what is"
    elif record.built_on.get(up) != sound[up].result:
        what = "is another result than the one that it was made of"
    else:
        return None
    return f"{record.path}: builds on {up}, which {what}; {_remedy(record.path)}"


def _folders() -> Iterable[Path]:
    """Whatever lies where records do, with a record.json or without."""
    return sorted(outputs().glob("records/[!.]*/[!.]*"))


def _before(sound: Mapping[str, Record]) -> list[str]:
    """Their ids, each after those that it builds on."""
    found: dict[str, None] = {}

    def add(id: str) -> None:
        if id in sound and id not in found:
            for up in sound[id].upstream:
                add(up)
            found[id] = None

    for id in sound:
        add(id)
    return list(found)
