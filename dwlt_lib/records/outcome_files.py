"""Correctness per image: a record's outcomes.safetensors, one bit per test image and accuracy.

The bits are what was measured; the accuracies in the record's metrics are their means.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dwlt_lib.records.record import Record

FILE = "outcomes.safetensors"


def pack(outcomes: Mapping[str, np.ndarray]) -> bytes:
    """The content of outcomes.safetensors, the same bytes for the same outcomes.

    Args:
        outcomes: by name, (n,) bool in the order of the test set: whether each image was
            classified rightly.

    Returns:
        A safetensors file of (ceil(n / 8),) uint8 by name, the first image in the highest bit
        (`numpy.packbits`), the last byte filled up with 0.
    """
    return save({name: np.packbits(right) for name, right in outcomes.items()})


def transfer_id(record: Record) -> str:
    """The transfer whose network a record tests.

    Args:
        record: a transfer, or a record that builds on one.

    Returns:
        The record's own id, or that of its first upstream record.
    """
    if record.kind == "transfer" or not record.upstream:
        return record.id
    return record.upstream[0]


def unpack(record: Record, transfer: Record) -> dict[str, np.ndarray]:
    """The outcomes that one record stores.

    Args:
        record: one that has the file.
        transfer: the record of `transfer_id`, which says how many test images there are.

    Returns:
        (n,) bool by name. n is the transfer's test_images; where the record's spec has a `count`,
        it is of the first `count` images alone.

    Raises:
        ValueError: the file is missing or changed, or is not what `pack` wrote of n images.
    """
    images = transfer.metrics.get("test_images")
    count = record.spec.get("count", images)
    try:
        n, bits = min(images, count), load(record.read(FILE))
        whole = all((of.dtype, of.shape) == (np.uint8, (-(-n // 8),)) for of in bits.values())
        if whole and (record.kind != "transfer" or {"SA", "RA"} <= bits.keys()):
            return {name: np.unpackbits(packed, count=n) > 0 for name, packed in bits.items()}
    except (SafetensorError, TypeError) as error:
        reason = str(error).splitlines()[0]
    else:
        reason = f"want the bits of {n} images, of a transfer SA's and RA's"
    raise ValueError(f"{record.path / FILE}: {reason}; {record.location.remedy}")


def disagreements(record: Record, transfer: Record) -> list[str]:
    """What is wrong with a record's outcomes, or with the accuracies that are their means.

    Args:
        record: one that has the file.
        transfer: as for `unpack`.

    Returns:
        A line if the file cannot be read, else a line for the first accuracy in the record's
        metrics that is not the mean of its bits; empty if nothing is wrong.
    """
    try:
        outcomes = unpack(record, transfer)
    except ValueError as error:
        return [str(error)]
    for name, right in outcomes.items():
        metric = name if name in record.metrics else f"{name}_accuracy"
        recorded, counted = record.metrics.get(metric), right.mean()
        if recorded is None or not abs(recorded - counted) < 1e-9:
            return [
                f"{record.path}: {metric} is recorded as {recorded}, and {FILE} has {counted:.6g}"
                f" ({right.sum()} of {len(right)} images); {record.location.remedy}"
            ]
    return []
