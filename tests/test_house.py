"""The house's own rules.

Who imports whom, how long lines and cells are, and what an import pulls in.
"""

import ast
import importlib
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
LIBRARY = ROOT / "dwlt_lib"
MODULES = {
    path.relative_to(LIBRARY).with_suffix("").as_posix(): path
    for path in sorted(LIBRARY.rglob("*.py"))
}
FOLDERS = sorted(path.parent.name for path in LIBRARY.glob("*/__init__.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

SCIENCE = {"attacks", "data", "evaluation", "models", "training", "pruning", "analysis"}

# folder: which others it may import, beside config and the module `files`
MAY_IMPORT = {
    "config": set(),
    "data": set(),
    "models": {"data"},
    "attacks": {"models"},
    "evaluation": {"attacks", "data"},
    "training": {"attacks", "data", "evaluation", "models"},
    "records": set(),
    "pruning": {"data", "models", "records", "training"},
    "analysis": {"evaluation", "models", "pruning"},
    "plotting": {"analysis"},
    "execution": SCIENCE | {"plotting", "records"},
    "browser": {"analysis", "plotting", "pruning", "records"},
    "report": {"analysis", "plotting", "pruning", "records"},
    "tour": SCIENCE | {"execution", "plotting", "records"},
    "benchmarks": SCIENCE | {"execution", "records"},
    "cli": set(FOLDERS),
}
WITHOUT_TORCH = (
    "config/datasets",
    "config/network_names",
    "config/specs",
    "config/studies",
    "config/parameter_file",
    "config/planning",
    "config/recipes",
    "analysis/claims",
    "analysis/contrasts",
    "analysis/double_win",
    "analysis/masked_gradients",
    "analysis/statistics",
    "analysis/tables",
    "records/store",
)


def imports(path, top_level=False):
    """(ours, others) that a file imports.

    Ours as "folder/module", others by their first name; top_level: only what is imported when the
    file itself is.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours, others = set(), set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dwlt_lib"):
            parts = node.module.split(".")[1:]
            if not parts and [alias.name for alias in node.names] == ["__version__"]:
                continue
            named = {"/".join((*parts, alias.name)) for alias in node.names}
            ours |= named & set(MODULES) or {"/".join(parts)} - {""}
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
    return ours, others


def test_every_folder_has_a_row_in_the_table():
    assert set(MAY_IMPORT) == set(FOLDERS)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_from_the_folders_that_the_table_grants_it(name):
    folder = name.split("/")[0]
    used = {other.split("/")[0] for other in imports(MODULES[name])[0]} - {folder, "files"}
    granted = MAY_IMPORT[folder] | {"config"} if folder in MAY_IMPORT else set()
    assert used <= granted


def test_nothing_is_imported_in_a_circle():
    graph = {name: imports(path, top_level=True)[0] for name, path in MODULES.items()}
    while graph:
        leaves = [name for name, needs in graph.items() if not needs & set(graph)]
        assert leaves, f"a circle among {sorted(graph)}"
        for name in leaves:
            del graph[name]


def test_a_ticket_loads_without_records():
    assert "records/store" not in imports(MODULES["pruning/tickets"], top_level=True)[0]


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
    for name in ("records.store", "analysis.double_win", "execution.study_files"):
        assert "torch" not in pulled_in(name)


def test_making_records_loads_neither_notebooks_nor_plots():
    found = pulled_in("execution", "make")
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


def test_every_folder_says_what_stands_in_it_and_shows_its_doors():
    for folder in FOLDERS:
        package = importlib.import_module(f"dwlt_lib.{folder}")
        assert package.__doc__, folder
        for name in getattr(package, "__all__", ()):
            assert getattr(package, name) is not None, f"{folder}.{name}"
            assert name in dir(package)


def test_a_run_starts_workers_without_loading_what_they_load():
    assert not {"torch", "papermill", "matplotlib", "ipykernel", "nbformat"} & pulled_in(
        "execution", "workers"
    )


def test_the_command_answers_help_without_loading_torch():
    assert not {"torch", "papermill", "matplotlib"} & pulled_in("cli", "main")


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


FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
NO_RESULT = ("return", "return None")


def public_functions(tree):
    """(name, node) of each; a command says what it is in its help, a property as an attribute."""
    for node in public(tree):
        for part in node.body if isinstance(node, ast.ClassDef) else [node]:
            marks = " ".join(map(ast.unparse, getattr(part, "decorator_list", [])))
            if isinstance(part, FUNCTION) and not part.name.startswith("_"):
                if not re.search(r"command\(|callback\(|property", marks):
                    method = part is not node and "staticmethod" not in marks
                    yield f"{node.name}.{part.name}" if method else part.name, part, method


def own_nodes(nodes, caught=False):
    """All nodes below these, without functions within, and without errors that are caught there."""
    for node in nodes:
        if isinstance(node, FUNCTION | ast.Lambda | ast.ClassDef):
            continue
        if caught and isinstance(node, ast.Raise):
            continue
        yield node
        tried = node.body if isinstance(node, ast.Try) and node.handlers else []
        yield from own_nodes(tried, caught=True)
        yield from own_nodes([n for n in ast.iter_child_nodes(node) if n not in tried], caught)


def undocumented(function, method):
    """What the docstring of a function does not say, or says of what is not there."""
    parts = re.split(r"^(\w+):$", ast.get_docstring(function) or "", flags=re.M)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    given = [*function.args.posonlyargs, *function.args.args][method:] + function.args.kwonlyargs
    given += filter(None, (function.args.vararg, function.args.kwarg))
    names = {argument.arg for argument in given if not argument.arg.startswith("_")}
    lines = re.findall(r"^ {4}(\S[^:]*):", sections.get("Args", ""), re.M)
    described = {name.strip(" *") for line in lines for name in line.split(",")}
    found, nodes = sorted(names ^ described), list(own_nodes(function.body))
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in nodes):
        found += {"Yields"} - set(sections)
    elif any(isinstance(n, ast.Return) and ast.unparse(n) not in NO_RESULT for n in nodes):
        found += {"Returns"} - set(sections)
    for node in nodes:
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            error = ast.unparse(node.exc.func).split(".")[-1]
            own = error[0].isupper()  # else made by a function
            if error not in sections.get("Raises", "") if own else "Raises" not in sections:
                found.append(f"Raises {error}")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_of_public_functions_describe_arguments_results_and_errors(name):
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    found = {full: undocumented(*function) for full, *function in public_functions(tree)}
    assert not {full: lines for full, lines in found.items() if lines}


@pytest.mark.parametrize("name", MODULES)
def test_every_field_of_a_public_class_says_what_it_is(name):
    for node in public(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        described = set(re.findall(r"^ {4}(\w+):", ast.get_docstring(node) or "", re.M)) | {"kind"}
        for field, below in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(node, ast.ClassDef) and isinstance(field, ast.AnnAssign):
                text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                assert text or field.target.id in described, f"{node.name}.{field.target.id}"


@pytest.mark.parametrize("name", MODULES)
def test_classes_are_records_modules_exceptions_or_pools_nothing_else(name):
    if name in ("cli/main", "execution/runner"):
        return
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ClassDef) and not node.bases:
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            assert (
                any("dataclass(frozen=True)" in mark for mark in marks) or node.name == "Normalised"
            ), node.name


# words of a language of our own, which the field's names have replaced
FORMER_NAMES = set(
    "There Back Pull Part onto fires joint Change Computing at_once Kept judged stands settle Pages"
    " nursery _become mine _lighten theirs lacking SAID zoo inventory".split()
)
FORMER_PHRASES = re.compile(
    "a dot a kernel|a tile a layer|a worker a GPU|a notebook a process|drawn by lot|foretold"
    "|foretell|with suspicion"
)


def names_in(tree):
    """Every name that a file defines, takes, imports or uses."""
    for node in ast.walk(tree):
        for field in ("id", "arg", "name", "attr"):
            if isinstance(name := getattr(node, field, None), str):
                yield from name.split(".")


@pytest.mark.parametrize("name", MODULES)
def test_names_are_the_fields(name):
    text = MODULES[name].read_text(encoding="utf-8")
    assert not FORMER_NAMES & set(names_in(ast.parse(text)))
    assert not FORMER_PHRASES.search(text)


def test_no_branch_asks_which_study_it_serves():
    for name, path in MODULES.items():
        if name not in ("config/datasets", "config/parameter_file", "cli/main"):
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
def test_a_cell_is_about_ten_short_lines_without_def_or_class(path):
    for cell, source in cells(path, "code"):
        lines = [
            line
            for line in source.splitlines()
            if line.strip() and not line.strip().startswith(("#", "import ", "from "))
        ]
        has_parameters = "parameters" in cell["metadata"].get("tags", [])  # as many as a job has
        assert len(lines) <= 10 or has_parameters, source
        assert max(map(len, lines), default=0) <= 100, source
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
def test_parameters_stand_in_one_tagged_cell_each_on_a_line_with_its_type_and_a_comment(path):
    tagged = [
        source
        for cell, source in cells(path, "code")
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    assert len(tagged) == 1
    names = []
    for line in tagged[0].splitlines():
        (node,) = ast.parse(line).body
        assert isinstance(node, ast.AnnAssign) and "  # " in line, line
        names.append(node.target.id)
    if path.stem >= "11" and path.stem < "20":  # figure notebooks read one study, or compare two
        assert names == (["study"] if path.stem == "19_speed" else ["study", "other"])


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if "10" < path.stem < "20"], ids=lambda path: path.stem
)
def test_figure_notebooks_make_nothing(path):
    text = "\n".join(source for _, source in cells(path, "code"))
    assert not re.search(r"\bmake\b|\bfit\b|\btraining\b", text)
