"""Files of theta_p: the same bytes for the same checkpoint, and nothing else is taken for one."""

import hashlib
import subprocess
import sys

import dill
import torch
from checkpoint_files import (
    pretend,
    refused_in_a_line,
    robust,
    safetensors_file,
    same_tensors,
    trained_state,
)
from safetensors.torch import load_file
from typer.testing import CliRunner

from dwlt_lib.cli.main import app
from dwlt_lib.models import checkpoints, imported, tensor_files


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_the_same_bytes_every_time_with_their_provenance(tmp_path):
    torch.save(robust(trained_state()), tmp_path / "linf_8.pt", pickle_module=dill)
    done = invoke(
        "weights",
        "import",
        tmp_path / "linf_8.pt",
        "--as",
        "at",
        "--out",
        tmp_path / "a.safetensors",
    )
    assert done.exit_code == 0 and "theta_AT, a resnet8" in done.stdout, done.output
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from dwlt_lib.cli.main import main; main()",
            "weights",
            "import",
            tmp_path / "linf_8.pt",
            "--as",
            "at",
            "--out",
            tmp_path / "b.safetensors",
        ],
        check=True,
    )
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert same_tensors(
        dict(sorted(load_file(tmp_path / "a.safetensors").items())),
        dict(sorted(trained_state().items())),
    )
    found = checkpoints.load_checkpoint(tmp_path / "a.safetensors")
    assert found.about["file"] == "linf_8.pt" and found.about["pretraining"] == "AT"
    assert (
        found.about["sha256"] == hashlib.sha256((tmp_path / "linf_8.pt").read_bytes()).hexdigest()
    )


def test_the_command_says_in_one_line_what_it_cannot_take(tmp_path):
    (tmp_path / "page.pth").write_text("<html>")
    for file, out in (
        ("page.pth", "out"),
        ("none.pth", "out"),
        (".", "out"),
        ("page.pth", "no/folder/out"),
    ):
        done = invoke("weights", "import", tmp_path / file, "--as", "std", "--out", tmp_path / out)
        assert done.exit_code == 2 and done.stderr.count("\n") == 1 and done.stdout == "", (
            done.output
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.pth"]


def test_a_file_of_theta_that_says_nonsense_is_refused_by_studies_and_by_its_reader(tmp_path):
    torch.save(trained_state(), tmp_path / "std.pth")
    sound = checkpoints.write_checkpoint(
        checkpoints.read_checkpoint(tmp_path / "std.pth", "std"), tmp_path / "std.safetensors"
    )
    tensors, about = tensor_files.read(
        sound, imported.FORMAT, imported.WRITER, lambda about, header: header
    )
    folder = tmp_path / "hostile"
    folder.mkdir()
    paths = pretend(folder)
    changes = {
        "classes 10^9": {"classes": 10**9},
        "classes a text": {"classes": "10"},
        "arch a list": {"arch": []},
        "theta no hash": {"theta": "x"},
        "arch with lines": {"arch": "x\n" * 10**5},
        "theta a list": {"theta": []},
        "pretraining with lines": {"pretraining": "STD\n"},
        "mean of two": {"mean": [0.5, 0.5]},
    }
    for i, (what, change) in enumerate(changes.items()):
        paths[what] = str(tensor_files.write(folder / f"{i}", tensors, {**about, **change}))
    deep = safetensors_file({"__metadata__": {"dwlt": "[" * 99_999}})
    (folder / "deep").write_bytes(deep)
    paths["metadata nested 99,999 deep"] = str(folder / "deep")
    for name in (
        "classes 10^9",
        "arch with lines",
    ):  # for a study they are another network than its own
        refused_in_a_line("checkpoints.load_checkpoint", str(sound), {name: paths[name]})
    del paths["classes 10^9"]
    refused_in_a_line(
        "imported.read_description",
        str(sound),
        paths,
    )
