"""Names of networks: our own, those of torchvision and timm, and a user's own builder.

No torch: here a name is only read, `architectures.build` builds what it names.
"""

from __future__ import annotations

import ast
import re
from difflib import get_close_matches
from typing import Any

OWN = ("resnet8", "resnet20", "resnet8x2_s2", "resnet18", "resnet18_32", "resnet50", "resnet50_32")
"""Our own networks."""

LARGEST = 4096
"""The largest number among keyword arguments: a name out of a file must not exhaust a machine."""

_FORM = re.compile(r"(?P<name>(torchvision|timm)/\w[\w.]*|[A-Za-z_][\w.]*:[A-Za-z_]\w*)(\(.*\))?")
_RESERVED = re.compile("num_classes|weights|pretrained|checkpoint|cache_dir|features_only")


def canonical(arch: str) -> str:
    """A network's name as ids, tables and files have it: keyword arguments in alphabetical order.

    Example: `canonical("timm/convnext_atto(dims=[8,16], depths=(1, 1))")` is
    "timm/convnext_atto(depths=(1, 1), dims=[8, 16])".

    Args:
        arch: one of `OWN`, torchvision/NAME, timm/NAME or package.module:function, the last three
            perhaps with keyword arguments in parentheses: Python's literals.

    Returns:
        The name.

    Raises:
        ValueError: one line: it has none of these forms.
    """
    name, options = parse(arch)
    if not options:
        return name
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in sorted(options.items()))})"


def parse(arch: str) -> tuple[str, dict[str, Any]]:
    """Take a network's name apart.

    Args:
        arch: as `canonical` takes it.

    Returns:
        The name alone, and the keyword arguments of its builder.

    Raises:
        ValueError: one line: it is no name of a network.
    """
    if arch in OWN:
        return arch, {}
    match = _FORM.fullmatch(arch) if len(arch) <= 500 else None
    if match is None:
        raise ValueError(
            f"{arch[:60]!r}{nearest(arch, OWN)}: want one of {', '.join(OWN)}, or torchvision/NAME,"
            " timm/NAME or package.module:function"
        )
    name = match["name"]
    try:
        call = ast.parse(f"f{arch[len(name) :] or '()'}", mode="eval").body
        parts = list(ast.walk(call))
        if (
            not isinstance(call, ast.Call)
            or not isinstance(call.func, ast.Name)
            or call.args
            or "**" in arch
            or any(isinstance(part, ast.Set) for part in parts)
        ):
            raise ValueError("want keyword arguments, whose order of entries is fixed")
        options = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"{arch}: want keyword arguments with plain values, such as"
            f" {name}(img_size=32, depth=2)"
        ) from error
    for key, value in options.items():
        if _RESERVED.match(key):
            raise ValueError(
                f"{arch}: {key} is not a builder's to set here; classes come from the data set, and"
                " weights from a file under weights: take it out"
            )
        if any(abs(number) > LARGEST for number in _numbers(value)):
            raise ValueError(f"{arch}: {key}={value!r}: want numbers of at most {LARGEST}")
    return name, options


def is_packaged(arch: object) -> bool:
    """Whether a file from elsewhere may name this network: building it runs no code of its author.

    Args:
        arch: from a file's description, so of any type.

    Returns:
        True for `OWN`, torchvision's and timm's; False for a module's function, for anything else.
    """
    try:
        return isinstance(arch, str) and canonical(arch) == arch and not is_module(arch)
    except ValueError:
        return False


def is_module(arch: str) -> bool:
    """Whether the network is built by a function of the user's own.

    Args:
        arch: of `canonical`.

    Returns:
        True for package.module:function.
    """
    return ":" in arch.partition("(")[0]


def nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    """The names that a misspelt one may have meant, for an error.

    Args:
        name: the misspelt one.
        known: all that there are.

    Returns:
        " (nearest: ...)", or nothing where none is near.
    """
    close = get_close_matches(name, known, n=3)
    return f" (nearest: {', '.join(close)})" if close else ""


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [number for each in value for number in _numbers(each)]
    return [value] if isinstance(value, int | float) else []
