"""What must be there before a run starts: the device, files of theta_p, images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ctypes import CDLL
from pathlib import Path

from dwlt_lib.cli.refusal import refuse
from dwlt_lib.config import specs
from dwlt_lib.models import imported


def check(todo: Sequence[specs.Spec], device: str) -> str:
    """The device that is there, cpu or cuda, of auto, cpu or cuda; refuses one that is not, and
    files of images or of theta_p that are missing although a record in `todo` reads them."""
    chosen = _device(device)
    for spec in todo:
        if isinstance(spec, specs.ImportedSpec) and (problem := imported.missing_file_error(spec)):
            refuse(problem)
    wanted = dict.fromkeys(
        part for spec in todo for part in specs.reads(spec) if part[0].loader != "embedded"
    )
    if wanted:
        from dwlt_lib.data import folders

        try:
            for row, split in wanted:
                folders.split_path(row, split)
        except ValueError as error:
            refuse(str(error))
    return chosen


def _device(asked: str) -> str:
    """Where no driver of a GPU can be loaded there is none, and torch, 1.6 s of imports, is not
    asked.
    """
    if asked != "cuda" and sys.platform == "linux" and not Path("/dev/kfd").exists():
        try:
            CDLL("libcuda.so.1")
        except OSError:
            return "cpu"
    from dwlt_lib.execution import make

    try:
        return make.resolve(asked).type
    except ValueError as error:
        refuse(f"--device {asked}: {error}")
