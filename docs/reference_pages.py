"""Pages that follow from the code: every key of a parameter file, every command, every module.

conf.py calls `write` before Sphinx reads the pages; all goes to docs/_generated, which git ignores.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import typer

import dwlt_lib
from dwlt_lib.cli import main
from dwlt_lib.config import explanations
from dwlt_lib.config.parameter_file import PRESETS
from dwlt_lib.config.sites import ENGINES
from dwlt_lib.config.studies import Study

DOCS = Path(__file__).resolve().parent
STUDY = DOCS / "_build" / "study" / "studies" / "tour_full"  # `make docs` has dwlt report draw it
WIDTH = 88  # of what commands say of themselves, in characters


def write(folder: Path) -> None:
    """Every generated page, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = {"parameters.md": parameters(), "commands.md": commands(), **api()}
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    gallery(folder / "gallery")


# ------------------------------------------------------------------------------------------
# the keys of a parameter file


def parameters() -> str:
    """A table for the study itself, for each block in it and each kind of site, then presets."""
    schema = Study.model_json_schema()
    blocks = schema.pop("$defs")
    parts = [_table("Study", schema), *(_table(name, blocks[name]) for name in sorted(blocks))]
    parts += [_table(site.__name__, site.model_json_schema()) for site in ENGINES.values()]
    for path in sorted(PRESETS.glob("*.yaml"), reverse=True):  # as_paper comes first
        text = path.read_text(encoding="utf-8")
        parts.append(f"## Preset {path.stem}\n\n```yaml\n{text}```\n")
    return "\n".join(parts)


def _table(name: str, model: dict) -> str:
    about = " ".join(model["description"].split())
    lines = [f"## {name}", "", about, "", "| key | type | default | what it is |", "|-|-|-|-|"]
    for key, setting in model["properties"].items():
        default = explanations.default_of(setting, key in model.get("required", ()))
        cells = (f"`{key}`", explanations.type_of(setting, _link), default, setting["description"])
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _link(model: str) -> str:
    return f"[{model}](#{model.lower()})"


# ------------------------------------------------------------------------------------------
# the commands


def commands() -> str:
    """What each command's --help says."""
    parts = []
    for name, command in leaves(typer.main.get_command(main.app), "dwlt"):
        command.rich_markup_mode = None
        context = command.make_context(
            name, [], resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH
        )
        parts.append(f"### {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def leaves(command: object, name: str) -> Iterator[tuple[str, object]]:
    """(its whole name, a command) for each that does something itself."""
    subcommands = getattr(command, "commands", None)
    if not subcommands:
        yield name, command
        return
    for word, found in subcommands.items():
        yield from leaves(found, f"{name} {word}")


# ------------------------------------------------------------------------------------------
# the modules


def packages() -> list[str]:
    """Whatever stands in dwlt_lib, a page each: modules, and folders with all that is in them."""
    return [found.name for found in pkgutil.iter_modules(dwlt_lib.__path__)]


def api() -> dict[str, str]:
    """A page for each of `packages`, and one that lists them."""
    pages, rows = {}, []
    for name in packages():
        module = import_module(f"dwlt_lib.{name}")
        pages[f"api/{name}.rst"] = "\n".join(_module(module, "="))
        rows.append(f"| [{name}](/_generated/api/{name}.rst) | {_cell(_summary(module))} |")
    listed = "\n".join(f"/_generated/api/{name}" for name in packages())
    table = "\n".join(["| module | what it holds |", "|-|-|", *rows])
    pages["modules.md"] = f"{table}\n\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    return pages


def _summary(module: ModuleType) -> str:
    return inspect.cleandoc(module.__doc__ or "").partition("\n\n")[0]


def doors(package: ModuleType) -> list[str]:
    """The names that a folder exports; those of its modules are described with these."""
    if not hasattr(package, "__path__"):
        return []
    names = getattr(package, "__all__", ())
    return [name for name in names if not inspect.ismodule(getattr(package, name))]


def _module(module: ModuleType, underline: str, described: frozenset[str] = frozenset()) -> list:
    """reST that has autodoc describe a module; of a folder its doors, then each module in it."""
    short = module.__name__.removeprefix("dwlt_lib.")
    lines = [short, underline * len(short), "", f".. automodule:: {module.__name__}"]
    if not hasattr(module, "__path__"):
        skipped = sorted(described & vars(module).keys())
        lines += ["   :members:", "   :ignore-module-all:"]  # what is defined there, all of it
        lines += [f"   :exclude-members: {', '.join(skipped)}"] if skipped else []
        return [*lines, ""]
    lines += ["   :no-members:", ""]
    for name in doors(module):
        found = getattr(module, name)
        is_function = inspect.isroutine(inspect.unwrap(found))  # dict[str, int] is none
        kind = "class" if inspect.isclass(found) else "function" if is_function else "data"
        lines += [f".. auto{kind}:: {module.__name__}.{name}"]
        lines += ["   :no-value:"] if kind == "data" else []
        home = getattr(found, "__module__", module.__name__)
        if home.startswith("dwlt_lib") and not home.startswith(module.__name__):
            lines += ["   :no-index:"]  # a door to what another folder's page describes
        lines += [""]
    for inner in pkgutil.iter_modules(module.__path__):
        part = import_module(f"{module.__name__}.{inner.name}")
        lines += _module(part, "-", described | set(doors(module)))
    return lines


# ------------------------------------------------------------------------------------------
# the gallery


def gallery(folder: Path) -> None:
    """The executed notebooks of the committed study, as `dwlt report` left them.

    Raises ValueError if one of them failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((STUDY / "notebooks").glob("1*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", ())]
        if any(out["output_type"] == "error" for out in outputs):
            raise ValueError(f"{path}: failed when it was executed; mend it, then: make docs")
        notebook["cells"] = [cell for cell in notebook["cells"] if not _is_setting(cell)]
        (folder / path.name).write_text(json.dumps(notebook), encoding="utf-8")


def _is_setting(cell: dict) -> bool:
    return bool({"parameters", "injected-parameters"} & set(cell["metadata"].get("tags", ())))
