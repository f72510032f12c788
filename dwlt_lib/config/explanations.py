"""What every key of a parameter file means: its type, range and default, from the models."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dwlt_lib.config.studies import Study

ANY = "*"
"""Stands for a name in a key: `pretraining.*.epochs` explains `pretraining.AT.epochs`."""


class Setting(NamedTuple):
    """One key."""

    key: str
    """Dotted, such as grid.rounds."""
    type: str
    """In words, with its range."""
    default: str
    """As it is written, "required" or "left out"."""
    about: str
    """What it means."""

    def __str__(self) -> str:
        """All of it, in two lines."""
        default = self.default if self.default in ("required", "left out") else f"= {self.default}"
        return f"{self.key}: {self.type}; {default}\n    {self.about}"


def settings() -> list[Setting]:
    """Every key, each block's after the key of the block.

    Returns:
        The keys of a study's parameter file.
    """
    schema = Study.model_json_schema()
    return list(_walk(schema, schema["$defs"], ""))


def explain(key: str) -> list[Setting]:
    """A key, and all keys below it.

    Args:
        key: dotted, such as grid.rounds, transfer.AT.epochs or grid.

    Returns:
        Its setting first.

    Raises:
        KeyError: there is no such key; one line with the nearest ones.
    """
    every, words = settings(), key.split(".")
    found = [one for one in every if _covers(words, one.key.split("."))]
    if found:
        return found
    named = {one.key: one.key for one in every} | {
        one.key.rpartition(".")[2]: one.key for one in reversed(every)
    }
    near = difflib.get_close_matches(key, named, 3) or difflib.get_close_matches(
        words[-1], named, 3
    )
    hint = f"did you mean {', '.join(dict.fromkeys(named[one] for one in near))}? " if near else ""
    raise KeyError(f"{key}: no such key; {hint}dwlt params lists all")


def _covers(words: list[str], key: list[str]) -> bool:
    """Whether a key is the one of these words, or lies below it."""
    pairs = list(zip(words, key, strict=False))
    return len(words) <= len(key) and all(word == own or own == ANY for word, own in pairs)


def _walk(model: dict, blocks: dict, prefix: str) -> Iterator[Setting]:
    for name, setting in model["properties"].items():
        key = f"{prefix}{name}"
        default = default_of(setting, name in model.get("required", ()))
        about = " ".join(setting["description"].split())
        yield Setting(key, type_of(setting, lambda _: "block"), default, about)
        block, is_mapping = _block_of(setting)
        if block:
            yield from _walk(blocks[block], blocks, f"{key}.{ANY}." if is_mapping else f"{key}.")


def _block_of(setting: dict) -> tuple[str, bool]:
    """The block that a setting holds, "" if it holds none, and whether by names."""
    if "$ref" in setting:
        return setting["$ref"].rpartition("/")[2], False
    if setting.get("type") == "array" and "items" in setting:
        return _block_of(setting["items"])
    if setting.get("type") == "object":
        values = setting.get("patternProperties", {}).values()
        (value,) = values or [setting.get("additionalProperties")]
        return (_block_of(value)[0], True) if isinstance(value, dict) else ("", False)
    return "", False


def default_of(setting: dict, required: bool) -> str:
    """A setting's default, in words.

    Args:
        setting: its JSON schema.
        required: whether it has none.

    Returns:
        Such as `0.2`, "required", "left out" or "its defaults".
    """
    if required:
        return "required"
    default = setting.get("default")
    if isinstance(default, dict) and default:
        return "its defaults"
    return "left out" if default in (None, {}, [], "") else json.dumps(default)


def type_of(found: dict, refer: Callable[[str], str]) -> str:
    """A setting's type, in words.

    Args:
        found: its JSON schema.
        refer: what is said of a block, by the name of its model.

    Returns:
        Such as "whole number ≥ 0" or "list of ST, FAT, AT".
    """
    if "$ref" in found:
        return refer(found["$ref"].rpartition("/")[2])
    if "anyOf" in found:
        own = [one for one in found["anyOf"] if one.get("type") != "null"]
        return " or ".join(type_of(one, refer) for one in own)
    if "const" in found:
        return str(found["const"])
    if "enum" in found:
        return ", ".join(map(str, found["enum"]))
    if found["type"] == "array":
        each = found.get("prefixItems")
        if each is None:
            return f"list of {type_of(found['items'], refer)}"
        return f"list of {len(each)}: {', '.join(type_of(one, refer) for one in each)}"
    if found["type"] == "object":
        if "patternProperties" in found:  # any name
            (value,) = found["patternProperties"].values()
            return f"mapping of names to {type_of(value, refer)}"
        if found.get("additionalProperties") is True:
            return "mapping of names to anything"
        keys = type_of(found["propertyNames"], refer)
        return f"mapping of {keys} to {type_of(found['additionalProperties'], refer)}"
    words = {"integer": "whole number", "number": "number", "boolean": "true, false"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {found[key]:g}" for key, sign in signs.items() if key in found]
    return " ".join([words.get(found["type"], "text"), ", ".join(limits)]).strip()
