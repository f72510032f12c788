"""The house's own rules.

Who imports whom, how long lines and cells are, and what an import pulls in.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml

import dwlt_lib
from dwlt_lib.records.store import checkout

ROOT = checkout()
MODULES = {
    path.stem: path for path in sorted((ROOT / "dwlt_lib").glob("*.py")) if path.stem != "__init__"
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ANY = set(MODULES)

# the parts of the widgets
BROWSER = {"cards", "mask_cards", "live", "controls", "tab_sparsity", "tab_results", "tab_pictures"}

# where notebooks run
PROCESSES = {"workers", "engine", "preload"}

# module: which of ours it may import
TABLE = {
    "files": set(),
    "catalogue": set(),
    "specs": {"catalogue"},
    "costs": {"catalogue", "specs"},
    "order": {"specs"},
    "blocks": {"catalogue", "specs"},
    "studies": {"blocks", "catalogue", "specs"},
    "parameters": {"blocks", "catalogue", "files", "layouts", "specs", "studies"},
    "masks": {"models"},
    "imported": {"catalogue", "files", "specs", "studies", "zoo"},  # not for tickets
    "structure": {"masks"},
    "layers": set(),
    "gradient": {"models", "layers"},
    "attacks": {"gradient"},
    "winning": {"specs"},
    "models": set(),
    "embedded": set(),
    "unfinished": {"files"},
    "fingerprints": {"catalogue", "embedded", "files", "layouts", "packs", "studies"},
    "packs": {"files"},
    "layouts": {"catalogue", "files", "packs"},
    "pictures": {"files"},
    "data": {"catalogue", "embedded", "layouts", "packs", "pictures"},
    "archives": {"files"},
    "origins": {"archives", "catalogue", "downloads"},
    "inventory": {"catalogue", "data", "origins", "pictures"},
    "evaluation": {"attacks"},
    "graphs": set(),
    "training": {"masks", "attacks", "evaluation", "data", "graphs", "specs", "unfinished"},
    "tickets": {"data", "masks", "models", "training"},
    "pickles": set(),
    "containers": {"pickles"},
    "checkpoints": {"containers", "files", "masks", "models", "pickles"},
    "weights": {
        "checkpoints",
        "files",
        "imported",
        "masks",
        "models",
        "pickles",
        "records",
    },  # only when a ticket is written
    "downloads": {"files"},
    "zoo": {"catalogue", "downloads"},
    "refusal": set(),
    "ready": {"imported", "layouts", "make", "refusal", "specs"},
    "cli_weights": {"refusal", "weights", "zoo"},
    "cli_data": {"catalogue", "data", "inventory", "origins", "refusal"},
    "landscape": {"masks", "evaluation"},
    # masks: only when a mask is read
    "records": {
        "files",
        "fingerprints",
        "imported",
        "parameters",
        "specs",
        "studies",
        "masks",
        "unfinished",
    },
    "make": ANY
    - {
        "plots",
        "planes",
        "style",
        "words",
        "widgets",
        "runner",
        *PROCESSES,
        "report",
        "cli",
        "progress",
        "tour",
        "play",
        "servers",
        "closed_voila",
        "bench",
        "peers",
        *BROWSER,
    },
    "style": {"files"},
    "planes": {"winning", "style"},
    "plots": {"winning", "structure", "style", "planes"},
    "words": {"plots", "winning", "style"},
    "cards": {"plots", "style", "winning"},
    "mask_cards": {"cards", "masks", "structure", "style", "winning"},
    "live": {"plots", "style", "winning"},
    "controls": set(),
    "tab_sparsity": {
        "cards",
        "controls",
        "live",
        "mask_cards",
        "plots",
        "records",
        "style",
        "winning",
    },
    "tab_results": {"cards", "controls", "live", "style", "winning"},
    "tab_pictures": {"cards", "controls", "planes", "records", "style", "winning"},
    "widgets": {
        "cards",
        "controls",
        "plots",
        "records",
        "tab_pictures",
        "tab_results",
        "tab_sparsity",
    },
    "report": {"files", "records", "winning", "plots", "words"},
    "workers": {"files", "records"},
    "engine": {"workers"},
    # and names, as text, what workers are to have imported
    "preload": {"catalogue", "data", "workers"},
    # make, training and engine: only where records are made and notebooks run
    "runner": {
        "costs",
        "files",
        "order",
        "parameters",
        "studies",
        "specs",
        "records",
        "make",
        "training",
        "workers",
        "engine",
    },
    # the last two: only where speeds are measured
    "forecast": {"costs", "files", "specs", "records", "peers", "training"},
    "progress": {"plots"},
    "tour": ANY - {"widgets", "runner", *PROCESSES, "report", "cli", "bench", "peers", "play"},
    "play": {"tour", "plots", "studies", "winning"},
    "servers": {"closed_voila", "files", "records"},
    "closed_voila": set(),
    "peers": {"catalogue", "attacks", "landscape", "masks", "models", "specs", "training"},
    "bench": ANY - {"runner", *PROCESSES, "widgets"},
    "cli": ANY,
}
ONLY_FOR_THE_COMMAND = {"runner", "report", "widgets"}
ONLY_FOR_RUNS = {
    "workers": {"cli", "runner", "engine", "preload"},
    "engine": {"runner"},
    "preload": set(),
}
WITHOUT_TORCH = (
    "catalogue",
    "specs",
    "costs",
    "order",
    "blocks",
    "studies",
    "parameters",
    "winning",
    "records",
)


def imports(path, top_level=False):
    """(ours, others) that a module imports; top_level: only what is imported when it is."""
    tree = ast.parse(path.read_text())
    ours, others = set(), set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            package = "dwlt_lib" if node.level else node.module
            if package == "dwlt_lib":
                ours |= {alias.name for alias in node.names} - {"__version__"}
            elif package.startswith("dwlt_lib."):
                ours.add(package.split(".")[1])
            else:
                others.add(package.split(".")[0])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                first, *rest = alias.name.split(".")
                (ours if first == "dwlt_lib" else others).add(
                    rest[0] if first == "dwlt_lib" and rest else first
                )
    return ours, others


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_what_the_table_grants_it(name):
    assert name in TABLE, f"{name} is a new module: give it a row in the table"
    assert imports(MODULES[name])[0] <= TABLE[name]


def test_nothing_is_imported_in_a_circle():
    graph = {name: imports(path)[0] & set(MODULES) for name, path in MODULES.items()}
    while graph:
        leaves = [name for name, needs in graph.items() if not needs & set(graph)]
        assert leaves, f"a circle among {sorted(graph)}"
        for name in leaves:
            del graph[name]


@pytest.mark.parametrize("name", sorted(ONLY_FOR_THE_COMMAND & set(MODULES)))
def test_only_the_command_and_notebooks_import_it(name):
    users = {other for other, path in MODULES.items() if name in imports(path)[0]}
    assert users <= {"cli"}


@pytest.mark.parametrize("name", ONLY_FOR_RUNS)
def test_only_runs_of_studies_import_it(name):
    users = {other for other, path in MODULES.items() if name in imports(path)[0]}
    assert users <= ONLY_FOR_RUNS[name]


def test_records_load_masks_only_when_a_mask_is_read():
    assert "masks" not in imports(MODULES["records"], top_level=True)[0]


def test_weights_load_records_only_when_a_ticket_is_written():
    assert "records" not in imports(MODULES["weights"], top_level=True)[0]


def printed(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split("\n")


def pulled_in(*module):
    """What an import of the package, or of that module of it, loads besides."""
    name = ".".join(("dwlt_lib", *module))
    code = f"import sys; import {name}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(printed(code)[0].split())


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_descriptions_and_verdicts_need_no_torch(name):
    assert not {"torch", "torchvision"} & imports(MODULES[name])[1]


def test_reading_records_and_drawing_verdicts_loads_no_torch():
    for name in ("records", "winning"):
        assert "torch" not in pulled_in(name)


def test_making_records_loads_neither_notebooks_nor_plots():
    found = pulled_in("make")
    assert "torch" in found
    assert (
        not {
            "papermill",
            "mlxtend",
            "jupyter",
            "jupyterlab",
            "IPython",
            "matplotlib",
            "seaborn",
            "ipykernel",
            "nbformat",
            "sklearn",
            "skimage",
        }
        & found
    )


def test_importing_the_package_loads_nothing_and_shows_its_doors():
    found = pulled_in()
    assert (
        not {"torch", "torchvision", "pandas", "numpy", "matplotlib", "jupyter", "IPython"} & found
    )
    code = (
        "import dwlt_lib, sys; print(*dir(dwlt_lib)); "
        "print(*[name for name in sys.modules if name.startswith('dwlt_lib.')])"
    )
    shown, loaded = printed(code)[:2]
    assert {*dwlt_lib.__all__, "__version__"} <= set(shown.split())
    assert not loaded


def test_a_public_module_is_there_on_its_first_use_and_no_other_name_is():
    code = (
        "import dwlt_lib, sys; dwlt_lib.analysis.double_win.verdict; print(dwlt_lib.__version__); "
        "print(dwlt_lib.analysis.double_win is sys.modules['dwlt_lib.analysis.double_win'], "
        "hasattr(dwlt_lib, 'losing'))"
    )
    assert printed(code)[1] == "True False"
    assert re.fullmatch(r"\d+(\.\d+)+", dwlt_lib.__version__) or dwlt_lib.__version__ == "0+unknown"


def test_a_package_that_is_not_installed_has_a_version_too(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert dwlt_lib.__version__ == "0+unknown"


def test_public_modules_are_those_that_notebooks_use_and_type_checkers_see_the_same():
    assert dwlt_lib.__all__ == sorted(dwlt_lib.__all__) and set(dwlt_lib.__all__) <= ANY
    for path in NOTEBOOKS:
        for _, source in cells(path, "code"):
            used = re.findall(r"from dwlt_lib import ([\w, ]+)", source)
            assert set(", ".join(used).split(", ")) - {""} <= set(dwlt_lib.__all__), path.name
    tree = ast.parse((ROOT / "dwlt_lib" / "__init__.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "dwlt_lib":
            assert [alias.name for alias in node.names] == dwlt_lib.__all__


def test_a_run_starts_workers_without_loading_what_they_load():
    assert not {"torch", "papermill", "matplotlib", "ipykernel", "nbformat"} & pulled_in("workers")


def test_the_command_answers_help_without_loading_torch():
    if "cli" not in MODULES:
        pytest.skip("no command yet")
    assert not {"torch", "papermill", "matplotlib"} & pulled_in("cli")


@pytest.mark.parametrize("name", MODULES)
def test_text_files_are_read_and_written_as_utf_8_by_name(name):
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        called = node.func if isinstance(node, ast.Call) else None
        named = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        builtin = isinstance(called, ast.Name) and named == "open"
        modes = (
            [part.value for part in node.args[1:2] if isinstance(part, ast.Constant)]
            if builtin
            else []
        )
        if named in ("read_text", "write_text") or (
            builtin and not any("b" in mode for mode in modes)
        ):
            assert any(keyword.arg == "encoding" for keyword in node.keywords) or (
                builtin and not all(isinstance(part, ast.Constant) for part in node.args[1:2])
            ), ast.unparse(node)


def public(tree):
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not any(ast.unparse(base).endswith("Enum") for base in getattr(node, "bases", ())):
                yield node


@pytest.mark.parametrize("name", MODULES)
def test_modules_and_public_names_say_what_they_are(name):
    tree = ast.parse(MODULES[name].read_text())
    assert ast.get_docstring(tree)
    bare = [
        node.name for node in public(tree) if not ast.get_docstring(node) and len(node.body) > 1
    ]  # one statement says it itself
    assert not bare


@pytest.mark.parametrize("name", MODULES)
def test_classes_are_records_modules_exceptions_or_pools_nothing_else(name):
    if name in ("cli", "runner"):
        return
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ClassDef) and not node.bases:
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            assert (
                any("dataclass(frozen=True)" in mark for mark in marks) or node.name == "Normalised"
            ), node.name


def test_no_branch_asks_which_study_it_serves():
    for name, path in MODULES.items():
        if name not in ("catalogue", "parameters", "cli"):
            assert not re.search(r"if .*(dataset|study)\w* *== *[\"']", path.read_text()), name


def test_environment_installs_the_project_and_asks_for_the_same_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert f"python{project['requires-python']}" in wanted and {"pip": ["-e .[dev]"]} in wanted
    assert len(wanted) == 3  # python, pip and the project: pyproject.toml is the one list


# ------------------------------------------------------------------------------------------
# notebooks


def cells(path, kind):
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == kind:
            yield cell, "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    for cell, _ in cells(path, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None
    assert "papermill" not in json.loads(path.read_text())["metadata"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_is_about_ten_lines_without_def_or_class(path):
    for _, source in cells(path, "code"):
        lines = [
            line
            for line in source.splitlines()
            if line.strip() and not line.strip().startswith("#")
        ]
        assert len(lines) <= 10, source
        if not source.lstrip().startswith(("%", "!")):
            assert not any(
                isinstance(node, ast.FunctionDef | ast.ClassDef)
                for node in ast.walk(ast.parse(source))
            )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_a_title_and_prose_comes_before_code(path):
    first = json.loads(path.read_text())["cells"][0]
    assert first["cell_type"] == "markdown" and "".join(first["source"]).startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_stand_in_one_tagged_cell_one_assignment_a_line(path):
    tagged = [
        source
        for cell, source in cells(path, "code")
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    assert len(tagged) == 1
    tree = ast.parse(tagged[0])
    assert all(
        isinstance(node, ast.Assign) and node.lineno == node.end_lineno for node in tree.body
    )
    assert len({node.lineno for node in tree.body}) == len(tree.body)
    if path.stem >= "11" and path.stem < "20":
        assert [node.targets[0].id for node in tree.body] == [
            "study"
        ]  # figure notebooks have one parameter


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if "10" < path.stem < "20"], ids=lambda path: path.stem
)
def test_figure_notebooks_make_nothing(path):
    text = "\n".join(source for _, source in cells(path, "code"))
    assert not re.search(r"\bmake\b|\bfit\b|\btraining\b", text)
