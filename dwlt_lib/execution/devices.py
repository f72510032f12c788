"""Which device computes: the name that a user gives, resolved to one that is there.

torch, whose import takes seconds, is loaded only where it must be asked.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> torch.device:
    """The device of this name; for auto the GPU if there is one, else the CPU.

    Args:
        name: auto, cpu or cuda.

    Returns:
        A device of type cpu or cuda.

    Raises:
        ValueError: the name is unknown, or no CUDA device is visible.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {name!r}: want auto, cpu or cuda")
    import torch

    visible = torch.cuda.is_available()
    if name == "cuda" and not visible:
        raise ValueError("device cuda: no CUDA device is visible here; want cpu or auto")
    return torch.device("cuda" if name != "cpu" and visible else "cpu")


def visible_gpus() -> list[str]:
    """The GPUs that this process may use.

    Returns:
        Each as CUDA_VISIBLE_DEVICES would name it.
    """
    import torch

    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]
