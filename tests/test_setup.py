"""`make setup` with a stand-in for Python: which wheels pip is asked for, and from where."""

import shutil
import subprocess

import pytest

from dwlt_lib.records.store import checkout

STAND_IN = """#!/bin/sh
mkdir -p .venv/bin
for name in pip python; do
  printf '#!/bin/sh\\necho "%s $@" >> asked\\nexit %s\\n' $name "$STATUS" > .venv/bin/$name
  chmod +x .venv/bin/$name
done
"""
REST = "pip install -q -e .[dev]"


@pytest.fixture
def setup(tmp_path):
    """setup("TORCH=cpu", status=1): `make setup` where each tool ends so.

    (what make said, what was asked).
    """
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(checkout() / name, tmp_path)
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)

    def make(*settings, status=0):
        said = subprocess.run(
            ["make", "setup", "PYTHON=./python", *settings],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            env={"PATH": "/usr/bin:/bin", "STATUS": str(status)},
        )
        asked = tmp_path / "asked"
        return said, asked.read_text().splitlines() if asked.exists() else []

    return make


def test_without_a_word_pip_takes_what_it_takes(setup):
    said, asked = setup()
    assert said.returncode == 0 and asked == [REST]


@pytest.mark.parametrize("folder", [True, False])
def test_torch_cpu_takes_the_two_from_their_index_alone_then_the_rest_then_looks(
    setup, tmp_path, folder
):
    index = str(tmp_path) if folder else "https://index.invalid/cpu"
    said, asked = setup("TORCH=cpu", f"TORCH_INDEX={index}")
    source = f"--no-index --find-links {index}" if folder else f"--index-url {index}"
    assert said.returncode == 0, said.stderr
    assert asked[:2] == [f"pip install -q --no-deps {source} torch torchvision", REST]
    assert asked[2].startswith("python -c import torch, torchvision; torch.version.cuda and exit(")


@pytest.mark.parametrize(
    "settings, words", [(["TORCH=cpu"], "want TORCH_INDEX="), (["TORCH=cuda"], "want cpu")]
)
def test_half_a_wish_is_refused_before_anything_is_installed(setup, tmp_path, settings, words):
    said, asked = setup(*settings)
    assert said.returncode == 2 and words in said.stderr and said.stderr.count("\n") == 1
    assert not asked and not (tmp_path / ".venv").exists()


def test_an_index_without_the_wheels_is_named_and_the_set_up_stops(setup, tmp_path):
    said, asked = setup("TORCH=cpu", "TORCH_INDEX=https://index.invalid/cpu", status=1)
    assert said.returncode == 2 and "https://index.invalid/cpu has no torch" in said.stderr
    assert len(asked) == 1 and not (tmp_path / ".venv" / "installed").exists()
