"""What stands at the front door: one version everywhere, and files that name what there is."""

import re
import shlex
import subprocess
import sys
import tomllib

import pytest
import yaml

from dwlt_lib.records.store import checkout

ROOT = checkout()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_newest_version_of_the_changelog_and_of_the_citation_are_the_packages():
    heading = r"^## \[(\S+)\] - (unreleased|\d{4}-\d\d-\d\d)$"
    released = re.findall(heading, text("CHANGELOG.md"), re.M)
    assert released[0][0] == PROJECT["project"]["version"]
    assert yaml.safe_load(text("CITATION.cff"))["version"] == PROJECT["project"]["version"]
    assert all(date != "unreleased" for _, date in released[1:])
    numbers = [tuple(map(int, version.split("."))) for version, _ in released]
    assert numbers == sorted(numbers, reverse=True)


def test_the_citation_names_the_software_and_the_paper():
    found = yaml.safe_load(text("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= found.keys()
    assert found["type"] == "software" and found["license"] == PROJECT["project"]["license"]
    (paper,) = found["references"]
    assert paper["title"] in " ".join(text("README.md").split()) and paper["year"] == 2022
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Chen", "Zhang", "Liu", "Zhang", "Chang", "Wang"]


def test_type_checkers_are_told_that_the_package_is_typed():
    settings = PROJECT["tool"]["setuptools"]
    assert settings["packages"]["find"]["include"] == ["dwlt_lib*"]
    assert {"py.typed", "*.pyi"} <= set(settings["package-data"]["*"])
    assert (ROOT / "dwlt_lib" / "py.typed").is_file()


def test_the_workflow_calls_make_test_by_the_oldest_python_and_knows_no_secret():
    (job,) = yaml.safe_load(text(".github/workflows/test.yml"))["jobs"].values()
    assert "make test" in [step.get("run") for step in job["steps"]]
    (python,) = [
        step["with"]["python-version"]
        for step in job["steps"]
        if "setup-python" in step.get("uses", "")
    ]
    assert PROJECT["project"]["requires-python"].startswith(f">={python}")
    assert "secrets." not in text(".github/workflows/test.yml")


def instructions():
    """(instruction, its words) of the Dockerfile, lines joined."""
    without = re.sub(r"^#.*\n", "", text(".ci/Dockerfile"), flags=re.M)
    lines = [line.split() for line in without.replace("\\\n", " ").splitlines() if line.strip()]
    return [(instruction, words) for instruction, *words in lines]


def test_the_image_copies_what_there_is_and_what_the_context_holds():
    ignored = {line for line in text(".dockerignore").splitlines() if not line.startswith("!")}
    copied = set()
    for instruction, words in instructions():
        if instruction == "COPY":
            sources = [word for word in words if not word.startswith("--")][:-1]
            copied |= set(sources)
            for source in sources:
                assert (ROOT / source).exists() and source not in ignored, source
    assert {"Makefile", "pyproject.toml", "dwlt_lib", "notebooks", "params"} <= copied
    project = PROJECT["project"]
    assert {project["readme"], *project["license-files"], "dwlt_lib"} <= copied


def test_the_image_is_set_up_as_a_checkout_is_and_runs_the_command_as_no_root():
    found = instructions()
    names = [name for name, _ in found]
    assert found[0] == ("FROM", ["python:3.11-slim"]) and names.count("ENTRYPOINT") == 1
    assert dict(found)["ENTRYPOINT"] == ['["dwlt"]'] and "dwlt" in PROJECT["project"]["scripts"]
    setup = next(i for i, (name, words) in enumerate(found) if name == "RUN" and "setup" in words)
    assert "TORCH=cpu" in found[setup][1]
    assert names.index("USER") < setup
    assert [words for name, words in found if name == "USER"] == [["dwlt"]]


def hooks():
    (repo,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert repo["repo"] == "local"
    return repo["hooks"]


@pytest.mark.parametrize("hook", hooks(), ids=lambda hook: hook["id"])
def test_a_hook_runs_what_the_set_up_installs_and_passes_here(hook):
    assert hook["language"] == "system"  # nothing is fetched for it
    tool, *arguments = shlex.split(hook["entry"])
    folder, name = tool.rsplit("/", 1)
    assert folder == ".venv/bin"
    installed = PROJECT["project"]["optional-dependencies"]["dev"]
    assert any(wanted.startswith(name) for wanted in installed)
    files = ["tests/test_project.py"] if hook.get("pass_filenames", True) else []
    said = subprocess.run(
        [sys.executable, "-m", name, *arguments, *files], cwd=ROOT, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_links_of_the_front_door_lead_somewhere():
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", text(page)):
            assert re.match("https://", target) or (ROOT / target).exists(), f"{page}: {target}"


def test_contributing_names_files_and_targets_that_there_are():
    said = text("CONTRIBUTING.md")
    for path in re.findall(r"`((?:dwlt_lib|notebooks|params|tests|outputs|\.ci)/[\w./]*)`", said):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"^ +make ([\w-]+)", said, re.M):
        assert re.search(rf"^{target}:", text("Makefile"), re.M), target
