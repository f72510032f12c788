"""What must be there before a run starts: the device, files of theta_p, images."""

from __future__ import annotations

from collections.abc import Sequence

from dwlt_lib.config.specs import ImportedSpec, RobustnessSpec, Spec, reads
from dwlt_lib.execution.devices import resolve_device_type
from dwlt_lib.models import imported


def check_inputs(specs: Sequence[Spec], device: str) -> str:
    """Check that these records can be made here, before anything is started or written.

    Args:
        specs: the records that are to be made.
        device: auto, cpu or cuda.

    Returns:
        The type of device to make them on, cpu or cuda.

    Raises:
        ValueError: one line; the device is not there, or a file of images or of theta_p that a
            record reads, or the package of an attack, is missing.
    """
    device_type = resolve_device_type(device)
    for spec in specs:
        if isinstance(spec, RobustnessSpec) and "AutoAttack" in spec.attacks:
            from dwlt_lib.attacks import auto  # torch takes a while

            auto.check(spec.transfer.data.classes)
        if isinstance(spec, ImportedSpec) and (problem := imported.missing_file_error(spec)):
            raise ValueError(problem)
    for row, split in dict.fromkeys(split for spec in specs for split in reads(spec)):
        if row.loader != "embedded":
            from dwlt_lib.data import folders  # its imports take a while

            folders.split_path(row, split)
    return device_type
