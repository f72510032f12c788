"""One record: what its record.json says, and its files, each checked when it is read.

A record lies in a folder of its own (`Folder`), or inside a study's file (`archive.ZipFolder`).
Both are a `Location`, and nothing else in the library needs to tell one from the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import load

from dwlt_lib import files

# the last entry of record.json is the digest of all that stands before it
DIGEST_ENTRY = ',\n "digest": "'
# what record.json must hold, and of which type
ENTRIES: dict[str, type] = {
    "kind": str,
    "id": str,
    "spec": dict,
    "upstream": list,
    "columns": dict,
    "metrics": dict,
    "history": list,
    "made": dict,
    "files": dict,
    "sizes": dict,
    "built_on": dict,
    "result": str,
}
Scalar = str | int | float  # and bool, which is an int


class Location(Protocol):
    """Where a record's files lie, and how they are read."""

    @property
    def kind(self) -> str:
        """The kind of record that belongs there."""
        ...

    @property
    def id(self) -> str:
        """The id of the record that belongs there."""
        ...

    @property
    def path(self) -> Path:
        """The folder, for messages; inside a study file no such folder exists on the disk."""
        ...

    @property
    def remedy(self) -> str:
        """What to do when something there is damaged."""
        ...

    def stamp(self) -> tuple[int, ...]:
        """What changes when record.json does.

        Returns:
            Numbers to be compared as a whole.

        Raises:
            OSError: there is no record.json.
        """
        ...

    def read(self, name: str) -> bytes:
        """The content of one file, not yet compared with its digest.

        Args:
            name: of the file, such as "mask.safetensors".

        Returns:
            Its bytes.

        Raises:
            OSError: there is no such file.
            ValueError: it lies in a study file that is damaged there.
        """
        ...

    def size(self, name: str) -> int | None:
        """The size of one file.

        Args:
            name: of the file.

        Returns:
            Bytes; None if it is not there.
        """
        ...


@dataclass(frozen=True)
class Folder:
    """A record's folder on the disk, KIND/ID.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def kind(self) -> str:
        """The kind of record that belongs there."""
        return self.path.parent.name

    @property
    def id(self) -> str:
        """The id of the record that belongs there."""
        return self.path.name

    @property
    def remedy(self) -> str:
        """What to do when something there is damaged."""
        return f"delete {self.path} and run its study again"

    def stamp(self) -> tuple[int, ...]:
        """What changes when record.json does.

        Returns:
            `files.stamp` of record.json.

        Raises:
            OSError: there is no record.json.
        """
        return files.stamp(self.path / "record.json")

    def read(self, name: str) -> bytes:
        """The content of one file.

        Args:
            name: of the file, such as "mask.safetensors".

        Returns:
            Its bytes, not yet compared with their digest.

        Raises:
            OSError: there is no such file.
        """
        return (self.path / name).read_bytes()

    def size(self, name: str) -> int | None:
        """The size of one file.

        Args:
            name: of the file.

        Returns:
            Bytes; None if it is not there.
        """
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return None


@dataclass(frozen=True)
class Record:
    """One result, as its record.json describes it.

    Attributes:
        kind: pretraining, mask, transfer, surface, trajectory, attack or robustness.
        id: 20 hexadecimal digits, a hash of the description.
        location: where its files lie.
        spec: the resolved description, nested; everything that the result depends on.
        upstream: ids of the records that it was made of.
        columns: what it is, as `records.table` shows it.
        metrics: scalars by name; accuracies in [0, 1].
        history: one dictionary per epoch (loss, lr, and SA and RA where they were validated).
        made: when, where and with what it was made; no part of the result.
        files: sha256 of each of its files, by name.
        sizes: bytes of each of its files, by name.
        built_on: {id: `result`} of the upstream records as they were when it was made.
        result: digest of metrics, history, files and built_on.
    """

    kind: str
    id: str
    location: Location = field(repr=False)
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

    @property
    def path(self) -> Path:
        """Its folder, for messages; of a record in a study file, no folder of the disk."""
        return self.location.path

    def has(self, name: str) -> bool:
        """Whether one of its files is there.

        Args:
            name: of the file, such as "weights.safetensors".

        Returns:
            False for the weights of a published record, which is without them.
        """
        return name in self.files and self.location.size(name) is not None

    def read(self, name: str) -> bytes:
        """The content of one of its files, exactly as it was written.

        Args:
            name: a key of `files`.

        Returns:
            Its bytes.

        Raises:
            ValueError: there is no such file, or it has changed since it was written.
        """
        self._require(name)
        try:
            data = self.location.read(name)
        except OSError:
            raise ValueError(self._missing_or_changed(name)) from None
        if hashlib.sha256(data).hexdigest() != self.files[name]:
            raise ValueError(self._missing_or_changed(name))
        return data

    def file(self, name: str) -> Path:
        """The path of one of its files, which is exactly as it was written.

        This is for files too large to be read at once, which only a folder holds: weights and
        trajectories. All others are read with `read`, wherever they lie.

        Args:
            name: a key of `files`.

        Returns:
            Its path in the record's folder.

        Raises:
            ValueError: there is no such file on the disk, or it has changed since it was written.
        """
        self._require(name)
        path = self.path / name
        if not isinstance(self.location, Folder):
            raise ValueError(
                f"{path}: left out when its study was published; run the study to make it here"
            )
        if not path.is_file() or files.sha256(path) != self.files[name]:
            raise ValueError(self._missing_or_changed(name))
        return path

    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers that are too many for JSON: surfaces, trajectories, attacked images.

        Returns:
            Arrays by name; empty if it has none.

        Raises:
            ValueError: their file is missing, or has changed since it was written.
        """
        name = "arrays.safetensors"
        return load(self.read(name)) if name in self.files else {}

    def _require(self, name: str) -> None:
        if name not in self.files:
            known = ", ".join(self.files) or "none"
            raise ValueError(f"{self.path / name}: the record holds no such file; it has {known}")

    def _missing_or_changed(self, name: str) -> str:
        return (
            f"{self.path / name}: missing or changed since it was written; {self.location.remedy}"
        )


def serialize(entries: Mapping[str, Any]) -> str:
    """The text of record.json.

    Args:
        entries: what it says, in the order of its lines.

    Returns:
        JSON whose last entry is the sha256 of what stands before it.
    """
    text = json.dumps(entries, indent=1)[:-2]
    return f'{text}{DIGEST_ENTRY}{hashlib.sha256(text.encode()).hexdigest()}"\n}}'


def load_record(location: Location) -> Record:
    """The record at a location, read again only when its file has changed.

    Args:
        location: where the record's files lie.

    Returns:
        The record; its other files are read and checked when they are asked for.

    Raises:
        OSError: there is no record.json.
        ValueError: it is damaged, or belongs elsewhere; one line.
    """
    return _load_record(location, location.stamp())


@cache
def _load_record(location: Location, stamp: tuple[int, ...]) -> Record:
    data = location.read("record.json")
    text, _, digest = data.rpartition(DIGEST_ENTRY.encode())
    if digest != f'{hashlib.sha256(text).hexdigest()}"\n}}'.encode():
        raise ValueError(
            f"{location.path / 'record.json'}: {_what_is_wrong(data)}; {location.remedy}"
        )
    entries = _read_json(data)
    if not _is_complete(entries):
        raise ValueError(
            f"{location.path / 'record.json'}: is not what records.write wrote; {location.remedy}"
        )
    if (entries["kind"], entries["id"]) != (location.kind, location.id):
        raise ValueError(
            f"{location.path}: says it is {entries['kind']} {entries['id']}; move it there, or "
            f"{location.remedy}"
        )
    return Record(location=location, **{name: entries[name] for name in ENTRIES})


def _read_json(data: bytes) -> Any:
    """What the JSON text holds; None if it cannot be read."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _is_complete(entries: Any) -> bool:
    """Whether record.json has all that a record has, each of its type."""
    if not isinstance(entries, dict):
        return False
    if not all(isinstance(entries.get(name), kind) for name, kind in ENTRIES.items()):
        return False
    scalars = [*entries["columns"].values(), *entries["metrics"].values()]
    texts = [*entries["upstream"], *entries["files"].values(), *entries["built_on"].values()]
    return all(isinstance(value, Scalar | None) for value in scalars) and all(
        isinstance(text, str) for text in texts
    )


def _what_is_wrong(data: bytes) -> str:
    try:
        entries = json.loads(data)
    except (ValueError, RecursionError) as error:
        return f"cannot be read ({str(error).splitlines()[0]})"
    if not isinstance(entries, dict) or "digest" not in entries:
        return "is not what records.write wrote"
    return "changed since it was written" if "built_on" in entries else "of a former version"
