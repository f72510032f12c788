"""Records: one small, self-describing, immutable result each, on disk; the only proof that work is done.

outputs/records/KIND/ID/record.json describes; .safetensors files beside it hold arrays; every file's sha256 is in
record.json. A record appears by one atomic rename, whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from dwlt_lib import imported
from dwlt_lib.parameters import BadStudy, parse, place
from dwlt_lib.specs import FORMAT, Spec, columns, label, record_id, upstream
from dwlt_lib.studies import Study, dataset, plan

# the order of a table's columns; others follow
ORDER = ["kind", "pretraining", "method", "dataset", "fraction", "regime", "rounds", "sparsity", "seed", "images",
         "SA", "RA"]
WHOLE = ("rounds", "seed", "mask_seed", "subset_seed", "epoch", "epochs", "epochs_run", "kept", "train_images",
         "validation_images", "images_used")
KEYS = ["kind", "pretraining", "method", "dataset", "fraction", "regime", "rounds", "seed", "images", "id"]


@dataclass(frozen=True)
class Record:
    """One record. spec: its resolved description, nested; metrics: scalars; history: one dict an epoch."""

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

    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers too many for JSON (surfaces, trajectories), by name; empty if it has none."""
        return load_file(self.path / "arrays.safetensors") if "arrays.safetensors" in self.files else {}


def checkout() -> Path:
    """The folder that holds dwlt_lib, notebooks and params."""
    return Path(__file__).resolve().parent.parent


def outputs() -> Path:
    """DWLT_OUTPUTS, or outputs/ in the checkout; never the working directory."""
    return Path(os.environ.get("DWLT_OUTPUTS") or checkout() / "outputs").resolve()


def study_dir(name: str) -> Path:
    """Where a study's executed notebooks, figures and report lie."""
    return outputs() / "studies" / name


def _references() -> list[Path]:
    """Folders of committed studies: under outputs, and those that come with the checkout."""
    roots = dict.fromkeys([outputs() / "reference", checkout() / "outputs" / "reference"])
    return [path.parent for root in roots for path in sorted(root.glob("*/study.json"))]


def path_of(kind: str, id: str) -> Path:
    return outputs() / "records" / kind / id


def partial(spec: Spec) -> Path:
    """Where a training that is under way leaves its checkpoint; gone once the record is there."""
    return outputs() / "records" / ".partial" / f"{record_id(spec)}.pt"


def exists(spec: Spec) -> bool:
    return (path_of(spec.kind, record_id(spec)) / "record.json").exists()


# ---------------------------------------------------------------------------------------------- writing


def write(spec: Spec, metrics: Mapping[str, float], history: list[dict[str, float]],
          files: Mapping[str, bytes | Path], made: Mapping[str, Any]) -> Path:
    """One record, once: written aside, then renamed into place. If another process was faster, its record stays.

    files: {name: content, or a file of this disk, which is moved in}; made: what is not part of the result's identity
    (seconds, device, code version...).
    """
    kind, id = spec.kind, record_id(spec)
    target = path_of(kind, id)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    scratch.chmod(0o755)
    content = {"kind": kind, "id": id, "label": label(spec), "format": FORMAT[kind], "columns": columns(spec),
               "metrics": dict(metrics), "upstream": [record_id(up) for up in upstream(spec)],
               "files": {name: _sha256(data) for name, data in files.items()},
               "history": history, "made": dict(made), "spec": spec.model_dump(mode="json")}
    content["digest"] = _digest(content)
    for name, data in {**files, "record.json": json.dumps(content, indent=1).encode()}.items():
        if isinstance(data, Path):
            os.replace(data, scratch / name)
            (scratch / name).chmod(0o644)
        else:
            (scratch / name).write_bytes(data)
        with open(scratch / name, "rb") as file:
            os.fsync(file.fileno())
    try:
        os.rename(scratch, target)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    return target


def _digest(content: Mapping[str, Any]) -> str:
    """sha256 of everything else that record.json says."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


# ---------------------------------------------------------------------------------------------- reading


def _load(path: Path) -> Record:
    content = json.loads((path / "record.json").read_bytes())
    names = ("kind", "id", "spec", "upstream", "columns", "metrics", "history", "made", "files")
    return Record(path=path, **{name: content[name] for name in names})


def read(id: str | Spec) -> Record:
    """The record of that id, in outputs/records or in a committed reference."""
    id = id if isinstance(id, str) else record_id(id)
    for root in (outputs() / "records", *_references()):
        for path in root.glob(f"*/{id}/record.json"):
            return _load(path.parent)
    raise KeyError(f"record {id}: not under {outputs()}; run the study that plans it")


def study_names() -> list[str]:
    """Studies that were planned here, and the committed references."""
    found = {path.parent.name for path in outputs().glob("studies/*/study.json")}
    return sorted(found | {path.name for path in _references()})


def study(name: str) -> dict[str, Any]:
    """What a study plans: name, params (its resolved parameters) and ids (of all its records)."""
    for folder in (study_dir(name), *_references()):
        path = folder / "study.json"
        if folder.name == name and path.exists():
            try:
                return json.loads(path.read_bytes())
            except ValueError as error:
                raise KeyError(f"study {name!r}: {path} cannot be read ({error}); delete it and run: dwlt report "
                               f"params/{name}.yaml") from None
    raise KeyError(f"study {name!r}: not planned under {outputs()}; want one of {study_names() or 'none yet'}, "
                   "or run: dwlt run params/NAME.yaml")


def write_study(found: Study) -> None:
    """Notes what the study plans, so that figures can tell its records from others and say how many are missing."""
    ids = list(plan(found))
    content = {"name": found.name, "params": found.model_dump(mode="json"), "ids": ids}
    path = study_dir(found.name) / "study.json"
    text = json.dumps(content, indent=1)
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".study-{os.getpid()}")
    scratch.write_text(text)
    os.replace(scratch, path)


def read_study(path: str | Path) -> Study:
    """A parameter file; raises parameters.BadStudy, one line, if it cannot be run.

    theta_p that come from files get their identity here, from the files, or else as study.json noted it before.
    """
    path = Path(path)
    text = path.read_text()
    found = parse(text, str(path))
    if not found.weights:
        return found
    for at, problem in imported.problems(found, dataset(found, found.source)):
        raise BadStudy(f"{place(text, str(path), *at)}: {problem}")
    try:
        noted = study(found.name)["params"].get("weights", {})
    except KeyError:  # never planned here, or its note is damaged
        noted = {}
    return imported.known(found, noted)


def missing(study_name: str) -> int:
    """How many of a study's records are not there yet."""
    return len(study(study_name)["ids"]) - len(_paths(None, study_name))


def table(kind: str | None = None, study: str | None = None, damaged: list[str] | None = None) -> pd.DataFrame:
    """One row a record (of `kind`; of `study`), sorted: what it is and its metrics. Accuracies are in 0..1.

    A record that cannot be read is an error; with `damaged`, a line about it is added there and the rest is returned.
    """
    rows = []
    for path in _paths(kind, study):
        try:
            record = _cached(path, (path / "record.json").stat().st_mtime_ns)
        except (ValueError, KeyError) as error:
            line = f"{path}: record.json cannot be read ({error}); delete the folder and run the study again"
            if damaged is None:
                raise ValueError(line) from None
            damaged.append(line)
            continue
        rows.append({"kind": record.kind, **record.columns, **record.metrics, "id": record.id,
                     "seconds": record.made.get("seconds")})
    if not rows:
        return pd.DataFrame(columns=[*ORDER, "id", "seconds"])
    found = pd.DataFrame(rows)
    found = found[[*(name for name in ORDER if name in found), *(name for name in found if name not in ORDER)]]
    gaps = {name: "Int64" for name in WHOLE if name in found and found[name].isna().any()}
    found = found.astype(gaps)  # whole numbers stay whole where other kinds have none
    return found.sort_values([key for key in KEYS if key in found], ignore_index=True, kind="stable")


@cache
def _cached(path: Path, stamp: int) -> Record:
    return _load(path)


def _paths(kind: str | None, study_name: str | None) -> list[Path]:
    """Folders of records that are there: all, or those a study plans; a reference stands in where it has them."""
    if study_name is None:
        return sorted(path.parent for path in outputs().glob(f"records/{kind or '*'}/[!.]*/record.json"))
    ids = dict.fromkeys(study(study_name)["ids"])
    found = {}
    for root in (*(path for path in _references() if path.name == study_name), outputs() / "records"):
        found |= {path.parent.name: path.parent for path in root.glob(f"{kind or '*'}/*/record.json")
                  if path.parent.name in ids}
    return [found[id] for id in ids if id in found]


def mask(id: str) -> dict[str, Any]:
    """The mask of a mask record: {torchvision's parameter name: bool tensor}."""
    from dwlt_lib.masks import unpack

    return unpack((read(id).path / "mask.safetensors").read_bytes())


def publish(study_name: str, tables: Mapping[str, str]) -> Path:
    """Copies a study to outputs/reference/NAME, to be committed: its records without weights, its figures as PNG and
    `tables` ({file name: text}). It replaces an older one whole; returns the folder."""
    target = outputs() / "reference" / study_name
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    scratch.chmod(0o755)
    for path in _paths(None, study_name):
        for name in ("record.json", "mask.safetensors", "arrays.safetensors"):
            if (path / name).exists():
                copy = scratch / path.parent.name / path.name / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path / name, copy)
    shutil.copyfile(study_dir(study_name) / "study.json", scratch / "study.json")
    for figure in sorted((study_dir(study_name) / "figures").glob("*.png")):
        (scratch / "figures").mkdir(exist_ok=True)
        shutil.copyfile(figure, scratch / "figures" / figure.name)
    for name, text in tables.items():
        (scratch / name).write_text(text)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(scratch, target)
    return target


def _sha256(data: bytes | Path) -> str:
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with open(data, "rb") as file:  # a trajectory of a large network has gigabytes
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify() -> list[str]:
    """What is wrong with the records on disk, a line each: damaged, incomplete or misplaced ones; empty if none."""
    problems = []
    for path in _paths(None, None):
        try:
            record, content = _load(path), json.loads((path / "record.json").read_bytes())
        except (ValueError, KeyError) as error:
            problems.append(f"{path}: record.json cannot be read ({error}); delete the folder and run again")
            continue
        if content.get("digest") != _digest(content):
            problems.append(f"{path / 'record.json'}: changed since it was written; delete {path} and run again")
        if (record.kind, record.id) != (path.parent.name, path.name):
            problems.append(f"{path}: says it is {record.kind} {record.id}; move it or delete it")
        for name, digest in record.files.items():
            file = path / name
            if not file.exists() or _sha256(file) != digest:
                problems.append(f"{file}: missing or changed since it was written; delete {path} and run again")
        problems += [f"{path}: builds on {up}, which is not there; run its study again"
                     for up in record.upstream if not any(outputs().glob(f"records/*/{up}/record.json"))]
    return problems
