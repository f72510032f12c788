"""Files of tensors with a description: safetensors whose one metadata entry `dwlt` is JSON.

The description ends with a digest over itself and the tensors. The same content gives the same
bytes. Torch is imported only where tensors are read or written: a description needs none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors import SafetensorError, safe_open

from dwlt_lib import files
from dwlt_lib.models.messages import describe_differences, printable

if TYPE_CHECKING:
    from torch import Tensor

Header = dict[str, tuple[tuple[int, ...], str]]
"""Shape and type (F32, I64, U8...) of each tensor in a file, by name."""

ExpectedHeader = Callable[[dict[str, Any], Header], Header]
"""The header that a file must have, given its description and its actual header.

Raises ValueError for a description that cannot be used.
"""


def write(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Write tensors and their description.

    Args:
        path: the file, in a folder that exists.
        tensors: by name.
        about: the description, `format` among its keys.

    Returns:
        The path.

    Raises:
        ValueError: the folder does not exist.
        OSError: the file cannot be written.
    """
    from safetensors.torch import save

    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: {path.parent} is not there; want a path in a folder that is")
    # one metadata entry, sorted: safetensors leaves the order of several to chance
    text = json.dumps({**about, "digest": _digest(tensors, about)}, sort_keys=True)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return files.write(path, save(contiguous, {"dwlt": text}))


def read(
    path: str | Path, format: str, writer: str, expected_header: ExpectedHeader
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write` wrote, and refuse anything else before any of its numbers are read.

    Args:
        path: the file.
        format: the value of `format` that its description must have.
        writer: what writes such files, for messages.
        expected_header: tells from the description which tensors the file must have.

    Returns:
        The tensors by name, and the description without its digest.

    Raises:
        ValueError: one line: no such file, or a damaged or changed one.
    """
    with open_file(path) as file:
        about = description(file, path, format, writer)
        header = read_header(file)
        try:
            differences = describe_differences(header, expected_header(about, header))
        except ValueError as error:
            differences = str(error)
        if differences:
            raise ValueError(
                f"{path}: does not hold the network that it describes ({differences}); want the"
                f" file as {writer} wrote it"
            )
        tensors = {name: file.get_tensor(name) for name in header}
    if about.pop("digest", None) != _digest(tensors, about):
        raise ValueError(f"{path}: damaged or changed since it was written; write it again")
    return tensors, about


def description(file: Any, path: str | Path, format: str, writer: str) -> dict[str, Any]:
    """The description in an open file.

    Args:
        file: of `open_file`.
        path: its path, for messages.
        format: the value of `format` that the description must have.
        writer: what writes such files, for messages.

    Returns:
        The description, its digest included; only `format` was checked.

    Raises:
        ValueError: one line: the file has no description of that format.
    """
    try:
        about = json.loads((file.metadata() or {}).get("dwlt", "null"))
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict) or about.get("format") != format:
        raise ValueError(f"{path}: not a file of format {format}; want one that {writer} wrote")
    return about


def check_values(about: Mapping[str, Any], checks: Mapping[str, Callable[[Any], object]]) -> None:
    """Refuse a description that lacks a value or has one of no use.

    Args:
        about: the description.
        checks: by key, whether a value is good; a TypeError means that it is not.

    Raises:
        ValueError: one line, which names the key.
    """
    for name, is_good in checks.items():
        if name not in about:
            raise ValueError(f"it does not say its {name}")
        try:
            good = is_good(about[name])
        except TypeError:  # for example a list in place of a text
            good = False
        if not good:
            raise ValueError(f"{name} is {printable(str(about[name]))}")


@contextmanager
def open_file(path: str | Path, framework: Literal["pt", "np"] = "pt") -> Iterator[Any]:
    """Open a safetensors file; none of its numbers are read yet.

    Args:
        path: the file.
        framework: of the tensors that it will give, torch (pt) or numpy (np).

    Yields:
        The file as `safetensors.safe_open` gives it.

    Raises:
        ValueError: one line: it is no file, or no safetensors file, or damaged.
    """
    path = files.regular(path)
    try:
        with safe_open(path, framework) as file:
            yield file
    except (SafetensorError, OSError) as error:
        line = printable(" ".join(str(error).split()), 300)
        raise ValueError(f"{path}: no safetensors file, or a damaged one ({line})") from error


def read_header(file: Any) -> Header:
    """Shape and type of each tensor in an open file.

    Args:
        file: of `open_file`.

    Returns:
        (shape, type) by name; no numbers were read.
    """
    slices = {name: file.get_slice(name) for name in list(file.keys())}
    return {name: (tuple(each.get_shape()), each.get_dtype()) for name, each in slices.items()}


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    from dwlt_lib.models.tensors import fingerprint

    text = json.dumps(about, sort_keys=True) + fingerprint(tensors)
    return hashlib.sha256(text.encode()).hexdigest()
