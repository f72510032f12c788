"""One record: what its record.json says, and its files, each checked when it is read.

It lies in a folder of its own, or inside a study's file (`archive.Location`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from safetensors.numpy import load

from dwlt_lib import files
from dwlt_lib.records.archive import Location

# the last entry of record.json is the digest of all that stands before it
DIGEST_ENTRY = ',\n "digest": "'


@dataclass(frozen=True)
class Record:
    """One result, as its record.json describes it.

    Attributes:
        location: where its files lie.
        kind: pretraining, mask, transfer, surface, trajectory, attack or robustness.
        id: 20 hexadecimal digits, a hash of the description.
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

    __pydantic_config__ = ConfigDict(strict=True)

    location: Location = field(repr=False)
    kind: str
    id: str
    spec: dict[str, Any]
    upstream: list[str]
    columns: dict[str, str | int | float | None]
    metrics: dict[str, int | float]
    history: list[dict[str, Any]]
    made: dict[str, Any]
    files: dict[str, str]
    sizes: dict[str, int]
    built_on: dict[str, str]
    result: str

    @property
    def path(self) -> Path:
        """Its folder, for messages; of a record in a study's file, no folder of the disk."""
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
            raise self._missing_or_changed(name) from None
        if hashlib.sha256(data).hexdigest() != self.files[name]:
            raise self._missing_or_changed(name)
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
        if self.location.published:
            raise ValueError(
                f"{path}: left out when its study was published; run the study to make it here"
            )
        if not path.is_file() or files.sha256(path) != self.files[name]:
            raise self._missing_or_changed(name)
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

    def _missing_or_changed(self, name: str) -> ValueError:
        return ValueError(
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
    try:
        entries = json.loads(data)
        if digest != f'{hashlib.sha256(text).hexdigest()}"\n}}'.encode():
            raise ValueError("changed since it was written")
        record = Record(**{**entries, "location": location})
    except ValidationError:
        problem = "is not what records.write wrote"
    except (ValueError, RecursionError) as error:
        problem = f"cannot be read ({str(error).splitlines()[0]})"
    else:
        if (record.kind, record.id) == (location.kind, location.id):
            return record
        problem = f"says it is {record.kind} {record.id}"
    raise ValueError(f"{location.path / 'record.json'}: {problem}; {location.remedy}")
