"""The pages under docs/: each is reached, links lead somewhere, and what they show exists.

Without Sphinx, which `make docs` runs with every warning an error.
"""

import ast
import inspect
import json
import re
import shlex
import subprocess
import sys
from importlib import import_module

import pytest
import typer
import yaml

from dwlt_lib.cli import main
from dwlt_lib.config.studies import Study
from dwlt_lib.records.store import checkout

ROOT = checkout()
DOCS = ROOT / "docs"
GENERATED = ("_build", "_generated", ".ipynb_checkpoints")
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if not set(GENERATED) & set(path.parts)]
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
sys.path.insert(0, str(DOCS))
import reference_pages  # noqa: E402


def text(path):
    return path.read_text(encoding="utf-8")


def named(path):
    return str(path.relative_to(ROOT))


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text(path), re.M | re.S)


def prose(path):
    return re.sub(r"^```.*?^```$", "", text(path), flags=re.M | re.S)


def slug(heading):
    """A heading's anchor, as GitHub and MyST have it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(path):
    found = {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(path), re.M)}
    if path.name == "parameters.md":
        found |= {
            slug(heading)
            for heading in re.findall(r"^#+ (.+)$", reference_pages.parameters(), re.M)
        }
    return found


def test_every_page_is_reached_from_the_first_one():
    reached, ahead = set(), [DOCS / "index.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        for entries in blocks(page, r"\{toctree\}"):
            for entry in entries.splitlines():
                if entry and not entry.startswith((":", "_generated")):
                    target = page.parent / f"{entry}.md"
                    assert target.is_file(), f"{named(page)}: {entry}"
                    ahead.append(target)
    assert reached == set(PAGES)


@pytest.mark.parametrize("path", [*PAGES, *FRONT], ids=named)
def test_links_and_pictures_lead_to_what_there_is(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match("https://", target):
            continue
        file, _, anchor = target.partition("#")
        found = path.parent / file if file else path
        assert found.is_file(), f"{named(path)}: {target}"
        assert not anchor or anchor in anchors(found), f"{named(path)}: {target}"


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_files_that_a_page_names_are_there(path):
    for name in re.findall(
        r"`((?:dwlt_lib|notebooks|params|tests|\.ci|docs)/[\w./]+)`", prose(path)
    ):
        assert (ROOT / name).exists() or name.startswith("docs/_build"), f"{named(path)}: {name}"


def commands(path):
    """(words, the line) of each command of this project that a page shows."""
    spans = re.findall(r"`((?:dwlt|make) [^`]+)`", prose(path))
    lines = [line for block in blocks(path, "bash") for line in block.splitlines()]
    lines += re.findall(r"^ {4}(\S.*)$", prose(path), re.M)
    for line in [*(" ".join(span.split()) for span in spans), *lines]:
        code = re.sub(r"\s#.*|[\[\]]", "", line)
        for part in re.split(r"[;|&]\s|\bdo\b", code):
            words = shlex.split(re.sub(r"^\S*/dwlt ", "dwlt ", part.strip()))
            if words[:1] in (["dwlt"], ["make"]):
                yield words, line


COMMANDS = dict(reference_pages.leaves(typer.main.get_command(main.app), "dwlt"))


@pytest.mark.parametrize("path", [*PAGES, *FRONT], ids=named)
def test_a_command_that_a_page_shows_is_one(path):
    targets = re.findall(r"^([\w-]+):", text(ROOT / "Makefile"), re.M)
    for words, line in commands(path):
        if words[0] == "make":
            assert words[1] in targets, f"{named(path)}: {line}"
            continue
        if words[1].startswith("--"):  # of dwlt itself
            continue
        name = next((n for n in (" ".join(words[:3]), " ".join(words[:2])) if n in COMMANDS), None)
        assert name, f"{named(path)}: {line}"
        known = {option for found in COMMANDS[name].params for option in found.opts}
        asked = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert asked <= known, f"{named(path)}: {line}"


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_what_python_examples_take_from_the_library_is_there(path):
    for example in blocks(path, "python"):
        modules = {}
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("dwlt_lib"):
                for alias in node.names:
                    found = getattr(import_module(node.module), alias.name)
                    if inspect.ismodule(found):
                        modules[alias.name] = found
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id in modules:
                    assert hasattr(modules[node.value.id], node.attr), f"{named(path)}: {node.attr}"


def test_the_examples_of_a_network_of_ones_own_and_of_records_run():
    for name in ("own_network", "read_records"):
        example = "\n".join(blocks(DOCS / "how_to" / f"{name}.md", "python"))
        done = subprocess.run(
            [sys.executable, "-W", "error::UserWarning:dwlt_lib", "-c", example],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr


def test_a_whole_parameter_file_on_a_page_is_a_study_and_any_part_has_keys_of_one():
    from dwlt_lib.config.parameter_file import parse

    whole = 0
    for path in PAGES:
        for block in blocks(path, "yaml"):
            assert set(yaml.safe_load(block)) <= set(Study.model_fields), named(path)
            if "name" in yaml.safe_load(block):
                parse(block, named(path))
                whole += 1
    assert whole


def test_every_key_of_a_parameter_file_stands_on_its_page_with_what_it_is():
    schema = Study.model_json_schema()
    page = reference_pages.parameters()
    for name, model in {"Study": schema, **schema["$defs"]}.items():
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        for key, setting in model["properties"].items():
            row = re.search(rf"^\| `{key}` \|(.*)\|$", section, re.M)
            assert row and len(setting["description"]) > 10, f"{name}.{key}"
            assert re.split(r"(?<!\\)\|", row[1])[-1].strip(), f"{name}.{key}"


def test_every_command_says_what_it_does():
    page = reference_pages.commands()
    for name in COMMANDS:
        assert f"### {name}\n" in page and f"Usage: {name} " in page


def test_every_module_of_the_library_has_its_place_on_a_page():
    pages = "\n".join(reference_pages.api().values())
    for path in (ROOT / "dwlt_lib").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        assert module == "dwlt_lib" or f".. automodule:: {module}\n" in pages, module


def test_a_gallery_page_leaves_out_the_cells_of_settings(tmp_path, monkeypatch):
    folder = tmp_path / "study" / "notebooks"
    folder.mkdir(parents=True)
    cells = [{"metadata": {"tags": tags}} for tags in ([], ["parameters"], ["report"])]
    (folder / "11_some.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    monkeypatch.setattr(reference_pages, "STUDY", tmp_path / "study")
    reference_pages.gallery(tmp_path / "gallery")
    shown = json.loads((tmp_path / "gallery" / "11_some.ipynb").read_text(encoding="utf-8"))
    assert [cell["metadata"]["tags"] for cell in shown["cells"]] == [[], ["report"]]


def test_a_notebook_that_failed_is_no_page_of_the_gallery(tmp_path, monkeypatch):
    folder = tmp_path / "study" / "notebooks"
    folder.mkdir(parents=True)
    failed = [{"metadata": {}, "outputs": [{"output_type": "error"}]}]
    (folder / "12_some.ipynb").write_text(json.dumps({"cells": failed}), encoding="utf-8")
    monkeypatch.setattr(reference_pages, "STUDY", tmp_path / "study")
    with pytest.raises(ValueError, match="12_some.ipynb: failed"):
        reference_pages.gallery(tmp_path / "gallery")


def test_what_a_folder_exports_is_described_with_it_and_not_again_with_its_module(
    tmp_path, monkeypatch
):
    folder = tmp_path / "some_folder"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from some_folder.part import TABLE, door\n__all__ = ['TABLE', 'door', 'part']\n",
        encoding="utf-8",
    )
    (folder / "part.py").write_text(
        "TABLE = {}\ndef door(): 'In.'\ndef inner(): 'Within.'\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    page = "\n".join(reference_pages._module(import_module("some_folder"), "="))
    assert ".. autofunction:: some_folder.door\n" in page
    assert ".. autodata:: some_folder.TABLE\n" in page
    assert ".. automodule:: some_folder.part\n" in page and "some_folder.inner" not in page
    assert ":exclude-members: TABLE, door\n" in page
