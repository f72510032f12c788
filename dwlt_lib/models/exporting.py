"""Networks for other programs: ONNX, and the programs of torch.export."""

from __future__ import annotations

from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dwlt_lib import files

SUFFIXES = (".onnx", ".pt2")


def export(model: nn.Module, path: str | Path, size: int) -> Path:
    """Write a network, masked or compacted, as a file that runs without this library.

    It takes any number of images at once, "images" (B,3,size,size) in [0,1], normalises them by
    itself and gives "logits" (B, classes). Zeros of a masked network are stored as zeros.

    Example: `export(compact(model), "ticket.onnx", size=32)`.

    Args:
        model: the network; it is exported in eval mode, on the CPU, and not changed.
        path: ends in .onnx (for onnxruntime and others; takes the extra `[onnx]`) or in .pt2 (for
            torch.export.load).
        size: side of the images in pixels.

    Returns:
        The path.

    Raises:
        ValueError: one line: another ending, no package onnxscript, or torch cannot export it.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: ends in {path.suffix!r}; want one of {', '.join(SUFFIXES)}")
    files.check(path.absolute().parent)
    if path.suffix == ".onnx":
        try:
            import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise ValueError(f"{path}: ONNX wants a package: pip install onnxscript") from error
    # torch.export.save warns of weights that lie channels-last
    plain = deepcopy(model).eval().cpu().to(memory_format=torch.contiguous_format)
    images = torch.rand(2, 3, size, size, dtype=next(plain.parameters()).dtype)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    try:
        program = torch.export.export(plain, (images,), dynamic_shapes=shapes)
        content = _onnx(program) if path.suffix == ".onnx" else _pt2(program)
    except Exception as error:  # the network's own code runs, which may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{type(model).__name__}: torch cannot export it: {reason}") from error
    files.write(path, content)
    return path


def _pt2(program: torch.export.ExportedProgram) -> bytes:
    buffer = BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _onnx(program: torch.export.ExportedProgram) -> bytes:
    exported: Any = torch.onnx.export(
        program, input_names=["images"], output_names=["logits"], verbose=False
    )
    return exported.model_proto.SerializeToString()
