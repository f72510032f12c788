"""What is wrong with records: damaged files, and results that build on what has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from dwlt_lib.records import outcome_files
from dwlt_lib.records.archive import PUBLISHED, Location
from dwlt_lib.records.record import Record, load_record


class Problem(NamedTuple):
    """What is wrong with one record."""

    location: Location
    """Where the record lies."""
    line: str
    """What is wrong, and the remedy."""


def problems_of(locations: Iterable[Location]) -> list[Problem]:
    """What is wrong with the records that should lie at these locations, one line each.

    Args:
        locations: all of one store, or all of one study file, since records build on each other.

    Returns:
        First the records that are damaged, incomplete or misplaced, or whose accuracies are not
        the means of their outcomes; then those that build on one of these, or on another result
        than the one that is there.
    """
    problems: dict[str, list[Problem]] = {}
    readable: dict[str, Record] = {}
    for location in locations:
        found = problems.setdefault(location.id, [])
        try:
            record = load_record(location)
        except OSError as error:
            line = (
                f"{location.path}: has no record.json that can be read ({error.strerror});"
                f" {location.remedy}"
            )
            found.append(Problem(location, line))
        except ValueError as error:
            found.append(Problem(location, str(error)))
        else:
            found.extend(Problem(location, line) for line in _file_problems(record))
            readable[record.id] = record
    for id, record in readable.items():
        transfer = readable.get(outcome_files.transfer_id(record))
        if not problems[id] and transfer and outcome_files.FILE in record.files:
            lines = outcome_files.disagreements(record, transfer)
            problems[id].extend(Problem(record.location, line) for line in lines)
    damaged = [problem for found in problems.values() for problem in found]
    dependent = []
    for record in _upstream_first(readable):
        for up in record.upstream:
            if reason := _broken_link(record, up, problems, readable):
                line = f"{record.path}: builds on {up}, which {reason}; {record.location.remedy}"
                dependent.append(Problem(record.location, line))
                problems[record.id].append(dependent[-1])
    return damaged + dependent


def _file_problems(record: Record) -> list[str]:
    """What is wrong with a record's files; a published record has only some of them."""
    lines = []
    for name in record.files:
        try:
            if not record.location.published:
                record.file(name)
            elif name in PUBLISHED:
                record.read(name)
        except ValueError as error:
            lines.append(str(error))
    return lines


def _broken_link(
    record: Record, up: str, problems: Mapping[str, list[Problem]], readable: Mapping[str, Record]
) -> str | None:
    """Why the upstream record is not the one that this record was made of, if it is not."""
    if up not in problems:
        return "is not there"
    if problems[up]:
        return "is damaged, or builds on what is"
    if record.built_on.get(up) != readable[up].result:
        return "is another result than the one that it was made of"
    return None


def _upstream_first(records: Mapping[str, Record]) -> list[Record]:
    """The records, each after those that it builds on; as they are if they build in a circle."""
    graph = {id: set(record.upstream) & records.keys() for id, record in records.items()}
    try:
        return [records[id] for id in TopologicalSorter(graph).static_order()]
    except CycleError:
        return list(records.values())
