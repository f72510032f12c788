"""Pickles read without unpickling: what one says is written down, and nothing of it is run.

A pickle is a program. An unpickler runs it and asks, name by name, what it may call;
`torch.load(weights_only=True)` does so with an allow-list that was bypassed twice (CVE-2025-32434,
CVE-2026-24747), and dill files need names that no list foresees. Here there is nothing to bypass: a
pickle's operations (pickletools.genops) move plain values about, a name in it stays a name (nothing
is looked up or imported), and a call of it becomes an `Inert` mark that holds nothing. Only four
calls mean anything, by their text alone: an OrderedDict is a dict, and torch's tensor-rebuilding
functions become a `Stored`: which numbers of the file, in which shape. Whoever reads those compares
shapes first; so no size that a file claims is ever allocated on its word.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pickletools import genops

import torch

LONG = 200  # letters, more than any name that means something here has
MOST_OPERATIONS = 2_000_000  # of a pickle; a ResNet-50 with its optimiser has about 50,000

TYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
REBUILD = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
PARAMETER = "torch._utils._rebuild_parameter"
DICT = "collections.OrderedDict"
UNDERSTOOD = {DICT, PARAMETER, *REBUILD, *(f"torch.{name}" for name in TYPES)}

# Not what keeps us safe, only an alarm: a checkpoint that names these is a trap for other loaders,
# its weights too.
TRAPS = {
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "importlib",
    "runpy",
    "pty",
    "socket",
    "shutil",
    "ctypes",
    "eval",
    "exec",
    "execfile",
    "compile",
    "open",
    "__import__",
    "system",
    "popen",
    "operator",
    "_operator",
    "code",
    "webbrowser",
    "pdb",
    "timeit",
    "cProfile",
    "_posixsubprocess",
}

LITERALS = {
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
    "UNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
    "FLOAT",
    "BINFLOAT",
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class BadCheckpoint(ValueError):
    """A file that is no checkpoint, is damaged, or holds something else than asked for.

    One line.
    """


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names; never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return plain(f"{self.module}.{self.name}")


@dataclass(frozen=True)
class Inert:
    """Where a pickle would have made an object: only what it called itself."""

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
    """Follows one pickle to its STOP: (its value, the names in it, the storages that it claims)."""
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

    def name(module: object, name: object) -> Name:
        if type(module) is not str or type(name) is not str:
            raise BadCheckpoint("a name in it is no text; the file is damaged or a trap")
        found = Name(
            module[:LONG], name[:LONG]
        )  # so that a call of it costs the same however long it is
        names[str(found)] = None
        return found

    for count, (operation, argument, _) in enumerate(genops(stream)):
        if count > MOST_OPERATIONS:
            raise BadCheckpoint(
                f"a pickle of more than {MOST_OPERATIONS:,} operations; want a checkpoint"
            )
        match operation.name:
            case kind if kind in LITERALS:
                stack.append(argument)
            case kind if kind in CONSTANTS:
                stack.append(CONSTANTS[kind])
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[argument])
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as kind:
                stack[-int(kind[-1]) :] = [tuple(stack[-int(kind[-1]) :])]
            case "EMPTY_LIST" | "EMPTY_DICT" as kind:
                stack.append([] if kind == "EMPTY_LIST" else {})
            case "LIST":
                stack.append(marked())
            case "DICT":
                stack.append(_set({}, marked()))
            case "APPEND" | "APPENDS" as kind:
                items = [stack.pop()] if kind == "APPEND" else marked()
                if type(stack[-1]) is list:
                    stack[-1].extend(items)
            case "SETITEM" | "SETITEMS" as kind:
                items = [stack.pop(-2), stack.pop()] if kind == "SETITEM" else marked()
                if type(stack[-1]) is dict:
                    _set(stack[-1], items)
            case "EMPTY_SET":
                stack.append(Inert("set"))
            case "ADDITEMS":
                marked()
            case "FROZENSET":
                marked()
                stack.append(Inert("frozenset"))
            case "GLOBAL":
                stack.append(name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(name(stack.pop(-2), stack.pop()))
            case "REDUCE" | "NEWOBJ":
                stack.append(_call(stack.pop(-2), stack.pop()))
            case "NEWOBJ_EX":
                stack[-3:] = [_call(stack[-3], None)]
            case "OBJ":
                stack.append(_call(marked()[0], None))
            case "INST":
                marked()
                stack.append(_call(name(*argument.split(" ", 1)), None))
            case "BUILD":
                stack.pop()  # a state; nothing has one
            case "PERSID" | "BINPERSID" as kind:
                found = _persistent(argument if kind == "PERSID" else stack.pop())
                if isinstance(found, Storage):
                    storages[found.key] = found
                stack.append(found)
            case "POP" | "POP_MARK" as kind:
                _ = (
                    stack.pop()
                    if kind == "POP" and len(stack) > max(marks[-1:], default=0)
                    else marked()
                )
            case "DUP":
                stack.append(stack[-1])
            case "PROTO" | "FRAME" | "STOP":
                pass
            case kind:
                raise BadCheckpoint(
                    f"its pickle uses {kind}, which torch.save does not write; want a checkpoint"
                )
    return stack.pop(), names, storages


def _set(target: dict[object, object], items: list[object]) -> dict[object, object]:
    for key, value in zip(items[::2], items[1::2], strict=True):
        simple = type(key) in (str, bytes) or type(key) is int and abs(key) < 2**32
        target[key if simple else object()] = (
            value  # hashing what is nested, or numbers that collide, has no bound
        )
    return target


def _call(what: object, arguments: object) -> object:
    """What a call stands for, if its text says so; else a mark."""
    called = str(what) if isinstance(what, Name) else "what is no name"
    if called == DICT and arguments == ():
        return {}
    if (
        called == PARAMETER
        and type(arguments) is tuple
        and arguments
        and isinstance(arguments[0], Stored)
    ):
        return arguments[0]
    if (
        called in REBUILD
        and type(arguments) is tuple
        and 4 <= len(arguments) <= 7
        and not any(arguments[6:])
    ):
        storage, offset, shape, stride = arguments[:4]
        whole = type(shape) is tuple and type(stride) is tuple and len(shape) == len(stride) <= 8
        if whole and isinstance(storage, Storage) and all(map(_natural, (offset, *shape, *stride))):
            return Stored(storage, offset, shape, stride)
    return Inert(called)


def _persistent(pid: object) -> Storage | Inert:
    """("storage", torch's class, key, device, count), and None for a view in the older format."""
    if (
        type(pid) is tuple
        and len(pid) in (5, 6)
        and pid[0] == "storage"
        and pid[5:] in ((), (None,))
    ):
        _, kind, key, _, count = pid[:5]
        if isinstance(kind, Name) and kind.module == "torch" and kind.name in TYPES:
            if type(key) is str and _natural(count):
                return Storage(TYPES[kind.name], key, count)
    return Inert("a persistent object")


def _natural(n: object) -> bool:
    return type(n) is int and 0 <= n < 2**40
