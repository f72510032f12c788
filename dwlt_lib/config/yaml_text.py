"""The text of a parameter file: YAML of the plain kind, and the line of each of its settings.

Whatever people and YAML read differently is refused, and so is a file that is large, deep, tagged
or holds itself, before any value is made of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml
from yaml.composer import ComposerError

# what a parameter file may hold at most: the longest of the paper's studies has 2 kB, 200 nodes and
# 4 levels
MOST_NODES = 20_000  # settings, entries and lists; an alias (*) counts as all that it stands for
MOST_LEVELS = 20
MOST_CHARACTERS = {"int": 18, "float": 26}  # of a number

Key = tuple[str | int, ...]  # where a setting stands: its name within the names and entries around


class BadStudy(ValueError):
    """A parameter file that cannot be run.

    Its message is one line that says where, what and the remedy.
    """


@dataclass(frozen=True)
class YamlText:
    """A parameter file's text, read once."""

    origin: str
    """The file's name, for errors."""
    values: dict[str, Any]
    """The settings as plain values."""
    lines: dict[Key, int]
    """The line, from 1, of each setting and of each entry of a list."""

    def place(self, *key: str | int) -> str:
        """Where a setting is written, or the innermost one around it that is written there.

        Args:
            *key: its name within the names and entries around it, as "data", "mine", "path".

        Returns:
            FILE:LINE; FILE alone if nothing around it is written there.
        """
        while key and key not in self.lines:
            key = key[:-1]
        return f"{self.origin}:{self.lines[key]}" if key else self.origin


def read_yaml(text: str, origin: str) -> YamlText:
    """The settings in a parameter file's text, each with its line.

    Args:
        text: the file's text.
        origin: the file's name, for errors.

    Returns:
        Plain values, and the line of each setting.

    Raises:
        BadStudy: it is no YAML of this kind, or no mapping; one line that names the place.
    """
    loader, tree = _composed(text, origin)
    lines: dict[Key, int] = {}
    _check_and_number(tree, (), lines, origin)
    return YamlText(origin, loader.construct_document(tree), lines)


def _check_and_number(node: yaml.Node, key: Key, lines: dict[Key, int], origin: str) -> None:
    """Notes the line of every setting beneath `node`.

    Refuses a name that stands twice or is no name, and a value that YAML reads otherwise than
    people do.
    """
    if isinstance(node, yaml.MappingNode):
        for name_node, value in node.value:
            name, line = _name(name_node, origin), name_node.start_mark.line + 1
            if (*key, name) in lines:
                raise BadStudy(f"{origin}:{line}: {name} stands twice; take one of them out")
            lines[(*key, name)] = line
            _check_and_number(value, (*key, name), lines, origin)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*key, i)] = value.start_mark.line + 1
            _check_and_number(value, (*key, i), lines, origin)
    elif isinstance(node, yaml.ScalarNode):
        problem = _misread(node, may_have_lines=key == ("title",))
        if problem:
            line = node.start_mark.line + 1
            raise BadStudy(f"{origin}:{line}: {'.'.join(map(str, key))}{problem}")


def _name(node: yaml.Node, origin: str) -> str:
    """A setting's name, refused if it is another kind of key."""
    is_scalar = isinstance(node, yaml.ScalarNode)
    if is_scalar and node.tag.endswith(":str") and _NAME.fullmatch(node.value):
        return node.value
    shown = repr(node.value)[:60] if is_scalar else "a list or a mapping"
    raise BadStudy(
        f"{origin}:{node.start_mark.line + 1}: {shown} as a key: YAML reads a"
        f" {node.tag.rpartition(':')[2]}; want a setting's name, of letters, digits, _ and -, each"
        " written out"
    )


class _Loader(yaml.SafeLoader):
    """Nodes, refused while they are read if too many, too deep, tagged or holding themselves."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.level = self.count = 0
        # of each node that is whole: how many it is, written out
        self.sizes: dict[yaml.Node | None, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event, before = self.peek_event(), self.count
        self.level, self.count = self.level + 1, self.count + 1
        if getattr(event, "tag", None) is not None:
            _refuse(f"a tag, {event.tag[:60]!r}", event)
        if self.level > MOST_LEVELS:
            _refuse(f"nested more than {MOST_LEVELS} deep", event)
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            if node not in self.sizes:
                _refuse("an anchor (&) that holds itself (*)", event)
            self.count += self.sizes[node]
        if self.count > MOST_NODES:
            _refuse(f"more than {MOST_NODES:,} entries, every alias (*) written out", event)
        self.sizes[node] = self.count - before
        self.level -= 1
        return node


def _refuse(problem: str, event: yaml.Event) -> NoReturn:
    raise ComposerError(None, None, problem, event.start_mark)


def _composed(text: str, origin: str) -> tuple[_Loader, yaml.MappingNode]:
    """The file's one mapping as nodes, and what makes values of them; none is made yet."""
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
    except (yaml.MarkedYAMLError, yaml.reader.ReaderError) as error:
        if isinstance(error, yaml.MarkedYAMLError):
            line, problem = getattr(error.problem_mark, "line", 0), str(error.problem)
        else:
            line, problem = text.count("\n", 0, error.position), error.reason
        raise BadStudy(
            f"{origin}:{line + 1}: not YAML of a parameter file"
            f" ({' '.join(problem.split())[:120]}); mend that line"
        ) from error
    if not isinstance(tree, yaml.MappingNode):
        kind = "a list" if isinstance(tree, yaml.SequenceNode) else "no setting"
        raise BadStudy(f"{origin}: holds {kind}; want a mapping with name, arch, source and grid")
    return loader, tree


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_READ_ALIKE = {  # what people and YAML read alike, by what YAML takes it for
    "int": re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    "bool": re.compile(r"true|false", re.I),
    "float": re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.I),
    "null": re.compile(r".*"),
    "str": re.compile(r".*", re.S),
}


def _misread(node: yaml.ScalarNode, may_have_lines: bool) -> str | None:
    """What to say of a value that YAML 1.1 does not read as it looks; None if all is well."""
    text, kind = node.value, node.tag.rpartition(":")[2]
    short = text if len(text) <= 40 else f"{text[:40]}..."
    control = _CONTROL.search(text.replace("\n", "") if may_have_lines else text)
    if control:
        return f"={short!r}: holds the control character {control[0]!r}; take it out"
    if node.style:  # quoted
        return None
    if kind not in _READ_ALIKE:
        return f": YAML reads {short} as a {kind}; put a word in quotes"
    most = MOST_CHARACTERS.get(kind, len(text))
    if len(text) > most:
        return f": a number of {len(text):,} characters, {short}; want {most} digits at most"
    if not _READ_ALIKE[kind].fullmatch(text):
        read = str(yaml.safe_load(text)).lower()
        return f": YAML reads {short} as {read}; write that, or put a word in quotes"
    if kind in MOST_CHARACTERS and text.startswith("-") and yaml.safe_load(text) == 0:
        return f": {short} is a negative zero; write 0"
    return None
