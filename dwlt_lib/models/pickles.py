"""Pickles are read without being run: their values are taken, and no name in them is looked up.

A pickle is a program. An unpickler runs it and asks, name by name, what it may call;
`torch.load(weights_only=True)` does so with an allow-list that was bypassed twice (CVE-2025-32434,
CVE-2026-24747), and dill files need names that no list foresees. Here there is nothing to bypass: a
pickle's operations (pickletools.genops) move plain values about, and a name in it, or a call of
that name, becomes an `InertObject`: nothing is imported or called. Only four calls mean anything,
by their text alone: an OrderedDict is a dict, and torch's functions that rebuild a tensor give a
`StoredTensor`, which tells the numbers of the file and their shape. Its reader compares shapes
first, so that no memory is allocated because a file claims a size.

The standard library's unpickler with names replaced by such objects would be shorter, but a few
bytes make it take memory (an entry of its memo at 2^31) or time (keys of one hash) without bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pickletools import genops
from typing import Any, cast

import torch

from dwlt_lib.models.messages import printable

MAX_OPERATIONS = 2_000_000
"""Of a pickle; a ResNet-50 with its optimiser has about 50,000."""

STORAGE_TYPES = {
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
REBUILD_TENSOR = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
ORDERED_DICT = "collections.OrderedDict"

# Reading is safe without this list. A checkpoint that names one of these attacks other loaders, so
# its weights are not to be trusted either.
SUSPICIOUS_NAMES = set(
    "os posix nt sys subprocess importlib runpy pty socket shutil ctypes eval"
    " exec execfile compile open __import__ system popen operator _operator code webbrowser pdb"
    " timeit cProfile _posixsubprocess".split()
)

LITERALS = set(
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINSTRING SHORT_BINSTRING BINUNICODE".split()
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class CheckpointError(ValueError):
    """One line: a file is no checkpoint, is damaged, or holds something else than asked for."""


@dataclass(frozen=True)
class InertObject:
    """A class or function that a pickle names, or what a call of it would have made."""

    name: str
    """Module and name, joined by a dot."""


@dataclass(frozen=True)
class Storage:
    """Numbers in the file, as the pickle claims."""

    dtype: torch.dtype
    """Of each number."""
    key: str
    """Where they lie in the file."""
    count: int
    """How many they are."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the pickle describes it; `torch_files.TorchFile.tensor` reads it."""

    storage: Storage
    """Where its numbers are."""
    offset: int
    """Of its first number in the storage."""
    shape: tuple[int, ...]
    """Its sizes, one per dimension."""
    stride: tuple[int, ...]
    """Steps in the storage, one per dimension."""


@dataclass(frozen=True)
class PickleContent:
    """What one pickle holds."""

    value: Any
    """Plain values, `StoredTensor` and `InertObject`."""
    storages: dict[str, Storage]
    """By key."""


def read_pickle(stream: BytesIO) -> PickleContent:
    """Follow one pickle to its end.

    Args:
        stream: stands at the pickle's start, and behind its end afterwards.

    Returns:
        What it holds; nothing of it was run.

    Raises:
        CheckpointError: it holds what torch.save does not write: operations of protocols 0 and 1
            alone, or of protocols beyond its own, which is 2; or it names something suspicious.
        Exception: any other, if the pickle is damaged.
    """
    stack: list[Any] = []
    marks: list[int] = []  # how high the stack was at each
    memo: dict[int, object] = {}
    storages: dict[str, Storage] = {}

    def pop_to_mark() -> list[Any]:
        height = marks.pop()
        items = stack[height:]
        del stack[height:]
        return items

    for count, (operation, raw_argument, _) in enumerate(genops(stream)):
        argument = cast(Any, raw_argument)  # its type depends on the operation
        if count > MAX_OPERATIONS:
            raise CheckpointError(
                f"a pickle of more than {MAX_OPERATIONS:,} operations; want a checkpoint"
            )
        match operation.name:
            case "PROTO" | "STOP":
                pass
            case kind if kind in LITERALS:
                stack.append(argument)
            case kind if kind in CONSTANTS:
                stack.append(CONSTANTS[kind])
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "MARK":
                marks.append(len(stack))
            case "POP" | "BUILD":  # BUILD: the state of an object that was not made
                stack.pop()
            case "POP_MARK":
                pop_to_mark()
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as kind:
                size = int(kind[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND" | "APPENDS" as kind:
                items = pop_to_mark() if kind == "APPENDS" else [stack.pop()]
                if type(stack[-1]) is list:
                    stack[-1].extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM" | "SETITEMS" as kind:
                items = pop_to_mark() if kind == "SETITEMS" else [stack.pop(-2), stack.pop()]
                if type(stack[-1]) is dict:
                    _set_items(stack[-1], items)
            case "GLOBAL":
                # cut first, so that a very long name costs no time
                name = printable(".".join(part[:200] for part in argument.split(" ", 1)))
                _check_name(name)
                stack.append(InertObject(name))
            case "REDUCE" | "NEWOBJ":
                stack.append(_call(stack.pop(-2), stack.pop()))
            case "BINPERSID":
                storage = _storage(stack.pop())
                if isinstance(storage, Storage):
                    storages[storage.key] = storage
                stack.append(storage)
            case kind:
                raise CheckpointError(
                    f"its pickle uses {kind}, which torch.save does not write; want a checkpoint"
                )
    return PickleContent(stack.pop(), storages)


def _check_name(name: str) -> None:
    if SUSPICIOUS_NAMES & set(name.replace(" ", ".").split(".")):
        raise CheckpointError(
            f"a trap: it names {name}, which other loaders would run (nothing was run here); want"
            " the file from its official source"
        )


def _set_items(target: dict[object, object], items: list[object]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        # hashing nested values, or numbers with the same hash, would take unbounded time
        is_simple = type(key) is str or (type(key) is int and abs(key) < 2**32)
        target[key if is_simple else object()] = value


def _call(function: object, arguments: object) -> object:
    """What a call makes, if it is one of the four known; else an inert object."""
    if not isinstance(function, InertObject):
        return InertObject("what is no name")
    if function.name == ORDERED_DICT and arguments == ():
        return {}
    match arguments:
        case (StoredTensor() as parameter, *_) if function.name == REBUILD_PARAMETER:
            return parameter
        case (Storage() as storage, offset, tuple(shape), tuple(stride), *rest) if (
            function.name in REBUILD_TENSOR
            and len(shape) == len(stride) <= 8
            and all(_is_count(n) for n in (offset, *shape, *stride))
            and len(rest) <= 3  # requires_grad, hooks, and marks as of a conjugate
            and not any(rest[2:])
        ):
            return StoredTensor(storage, offset, shape, stride)
    return function


def _storage(persistent_id: object) -> Storage | InertObject:
    """("storage", torch's class, key, device, count), and None for a view in the older format."""
    match persistent_id:
        case ("storage", InertObject(name), str(key), _, count, *rest) if (
            name in STORAGE_TYPES and _is_count(count) and rest in ([], [None])
        ):
            return Storage(STORAGE_TYPES[name], key, count)
    return InertObject("a persistent object")


def _is_count(n: object) -> bool:
    return type(n) is int and 0 <= n < 2**40
