"""Pickles read without unpickling: what one says is written down, and nothing of it is run.

A pickle is a program. An unpickler runs it and asks, name by name, what it may call;
`torch.load(weights_only=True)` does so with an allow-list that was bypassed twice (CVE-2025-32434,
CVE-2026-24747), and dill files need names that no list foresees. Here there is nothing to bypass: a
pickle's operations (pickletools.genops) move plain values about, and a name in it, or a call of
that name, becomes an `Inert` mark: nothing is looked up, imported or called. Only four calls mean
anything, by their text alone: an OrderedDict is a dict, and torch's tensor-rebuilding functions
become a `Stored`: which numbers of the file, in which shape. Whoever reads those compares shapes
first; so no size that a file claims is ever allocated on its word.

The standard library's unpickler with names replaced by such marks would be shorter, but a few
bytes make it take memory (an entry of its memo at 2^31) or time (keys of one hash) without bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pickletools import genops

import torch

MOST_OPERATIONS = 2_000_000  # of a pickle; a ResNet-50 with its optimiser has about 50,000

TYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
REBUILD = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
PARAMETER = "torch._utils._rebuild_parameter"
DICT = "collections.OrderedDict"
UNDERSTOOD = {DICT, PARAMETER, *REBUILD, *TYPES}

# Not what keeps us safe, only an alarm: a checkpoint that names these is a trap for other loaders,
# its weights too.
TRAPS = set(
    "os posix nt sys subprocess importlib runpy pty socket shutil ctypes eval exec execfile compile"
    " open __import__ system popen operator _operator code webbrowser pdb timeit cProfile"
    " _posixsubprocess".split()
)

LITERALS = set(
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINSTRING SHORT_BINSTRING BINUNICODE BINUNICODE8"
    " SHORT_BINUNICODE BINBYTES BINBYTES8 SHORT_BINBYTES BYTEARRAY8".split()
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class BadCheckpoint(ValueError):
    """A file that is no checkpoint, is damaged, or holds something else than asked for.

    One line.
    """


@dataclass(frozen=True)
class Inert:
    """A class or function that a pickle names, or what a call of it would have made."""

    of: str


@dataclass(frozen=True)
class Storage:
    """Numbers in the file: `count` of `dtype` under `key`, as the pickle claims."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass(frozen=True)
class Stored:
    """A tensor as the pickle describes it; `Contents.tensor` reads it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def plain(text: str, most: int = 100) -> str:
    """Text out of a foreign file, fit for one line of a terminal."""
    text = ascii(text[: most + 1])[1:-1]
    return text if len(text) <= most else text[:most] + "..."


def follow(stream: BytesIO) -> tuple[object, dict[str, None], dict[str, Storage]]:
    """Follow one pickle to its STOP: (its value, the names in it, the storages that it claims).

    Raises BadCheckpoint for what torch.save does not write: operations of protocols 0 and 1, the
    extension registry, buffers of elsewhere.
    """
    stack: list[object] = []
    marks: list[int] = []  # how high the stack was at each
    memo: dict[int, object] = {}
    names: dict[str, None] = {}
    storages: dict[str, Storage] = {}

    def marked() -> list[object]:
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    for count, (operation, argument, _) in enumerate(genops(stream)):
        if count > MOST_OPERATIONS:
            raise BadCheckpoint(
                f"a pickle of more than {MOST_OPERATIONS:,} operations; want a checkpoint"
            )
        match operation.name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case kind if kind in LITERALS:
                stack.append(argument)
            case kind if kind in CONSTANTS:
                stack.append(CONSTANTS[kind])
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "MARK":
                marks.append(len(stack))
            case "POP" | "BUILD":  # BUILD: the state of an object that was not made
                stack.pop()
            case "POP_MARK" | "ADDITEMS":  # ADDITEMS: to a set, which has no meaning here
                marked()
            case "TUPLE":
                stack.append(tuple(marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as kind:
                size = int(kind[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND" | "APPENDS" as kind:
                items = marked() if kind == "APPENDS" else [stack.pop()]
                if type(stack[-1]) is list:
                    stack[-1].extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM" | "SETITEMS" as kind:
                items = marked() if kind == "SETITEMS" else [stack.pop(-2), stack.pop()]
                if type(stack[-1]) is dict:
                    _set(stack[-1], items)
            case "EMPTY_SET":
                stack.append(Inert("set"))
            case "FROZENSET":
                marked()
                stack.append(Inert("frozenset"))
            case "GLOBAL" | "STACK_GLOBAL" as kind:
                by_text = kind == "GLOBAL"
                pair = argument.split(" ", 1) if by_text else [stack.pop(-2), stack.pop()]
                if not all(type(part) is str for part in pair):
                    raise BadCheckpoint("a name in it is no text; the file is damaged or a trap")
                # cut first: a call of it costs the same however long it is
                name = plain(".".join(part[:200] for part in pair))
                names[name] = None
                stack.append(Inert(name))
            case "REDUCE" | "NEWOBJ":
                stack.append(_call(stack.pop(-2), stack.pop()))
            case "BINPERSID":
                found = _persistent(stack.pop())
                if isinstance(found, Storage):
                    storages[found.key] = found
                stack.append(found)
            case kind:
                raise BadCheckpoint(
                    f"its pickle uses {kind}, which torch.save does not write; want a checkpoint"
                )
    return stack.pop(), names, storages


def _set(target: dict[object, object], items: list[object]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        # hashing what is nested, or numbers that collide, has no bound
        simple = type(key) is str or type(key) is int and abs(key) < 2**32
        target[key if simple else object()] = value


def _call(what: object, arguments: object) -> object:
    """What a call stands for, if its text says so; else a mark."""
    if not isinstance(what, Inert):
        return Inert("what is no name")
    if what.of == DICT and arguments == ():
        return {}
    match arguments:
        case (Stored() as parameter, *_) if what.of == PARAMETER:
            return parameter
        case (Storage() as storage, offset, tuple(shape), tuple(stride), *rest) if (
            what.of in REBUILD
            and len(shape) == len(stride) <= 8
            and all(_natural(n) for n in (offset, *shape, *stride))
            and len(rest) <= 3  # requires_grad, hooks, and marks as of a conjugate
            and not any(rest[2:])
        ):
            return Stored(storage, offset, shape, stride)
    return what


def _persistent(pid: object) -> Storage | Inert:
    """("storage", torch's class, key, device, count), and None for a view in the older format."""
    match pid:
        case ("storage", Inert(kind), str(key), _, count, *rest) if (
            kind in TYPES and _natural(count) and rest in ([], [None])
        ):
            return Storage(TYPES[kind], key, count)
    return Inert("a persistent object")


def _natural(n: object) -> bool:
    return type(n) is int and 0 <= n < 2**40
