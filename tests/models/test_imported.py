"""theta_p out of files.

A study builds on exactly those tensors, wherever they lie, and says what it lacks.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from checkpoint_files import robust
from safetensors.torch import load_file, save_file
from seeds import set_global
from typer.testing import CliRunner

from dwlt_lib.browser.app import Browser
from dwlt_lib.cli.main import app
from dwlt_lib.config import planning, specs, studies
from dwlt_lib.config.parameter_file import BadStudy
from dwlt_lib.data import batches
from dwlt_lib.execution import costs, inputs, make
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.models import architectures, imported
from dwlt_lib.models.tensors import fingerprint
from dwlt_lib.plotting import figures
from dwlt_lib.pruning import masks, tickets
from dwlt_lib.pruning.tickets import read_mask
from dwlt_lib.records import store

ROW = {"train_images": 4000, "test_images": 1000}
SMALL = {"epochs": 1, "batch": 256, "lr": 0.05, "schedule": "constant", "milestones": []}
PARAMS = {
    "name": "taken",
    "arch": "resnet8",
    "source": "mnist5k",
    "evaluation_steps": 1,
    "weights": {"STD": "std.safetensors", "AT": "at.safetensors"},
    "retraining": {"IMP-ST": SMALL, "IMP-AT": {**SMALL, "steps": 1}},
    "transfer": {regime: {**SMALL, "steps": 1} for regime in ("ST", "AT")},
    "grid": [
        {
            "pretraining": ["STD"],
            "method": ["OMP", "IMP-ST"],
            "dataset": ["digits"],
            "fraction": [0.1],
            "regime": ["AT"],
            "rounds": [2],
            "seeds": [0],
        }
    ],
}


def checkpoint(path, source="std", seed=0, arch="resnet8", classes=10, mean=0.252):
    """A file in torchvision's or MadryLab's layout, of a network with random weights."""
    set_global(seed)
    state = architectures.build(arch, classes, (0.5,) * 3, (0.5,) * 3).state_dict()
    found = robust(state) if source == "at" else state
    for name, part in found.get("model", {}).items():
        if "new_" in name:  # mnist5k's, not ImageNet's
            found["model"][name] = torch.full_like(part, mean if name.endswith("mean") else 0.289)
    torch.save(found, path)


def taken(path, source="std", **how):
    """Such a checkpoint after `dwlt weights import`."""
    raw = path.with_suffix(".pth")
    checkpoint(raw, source, **how)
    done = CliRunner().invoke(
        app, ["weights", "import", str(raw), "--as", source, "--out", str(path)]
    )
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture
def home(tmp_path, monkeypatch, outputs):
    """DWLT_DATA/weights with std.safetensors and at.safetensors."""
    monkeypatch.setenv("DWLT_DATA", str(tmp_path / "data"))
    folder = tmp_path / "data" / "weights"
    folder.mkdir(parents=True)
    taken(folder / "std.safetensors")
    taken(folder / "at.safetensors", "at", seed=1)
    return folder


@pytest.fixture
def written(tmp_path):
    """written(**changes): the path of the parameter file."""

    def write(**changes):
        path = tmp_path / "taken.yaml"
        path.write_text(yaml.safe_dump({**PARAMS, **changes}))
        return path

    return write


def theta_of(path):
    return fingerprint(load_file(path))


def ids(path):
    return list(planning.plan(read_study(path)))


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The one line with which a command refuses, before anything was made."""
    done = invoke(*arguments)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and done.stdout == "", done.output
    assert not list(store.outputs().glob("records/*/*"))
    return done.stderr


# -------------------------------------------------------------------------------------------
# identity


def test_ids_depend_on_the_tensors_and_not_on_the_path(home, written, tmp_path):
    before = ids(written())
    elsewhere = tmp_path / "elsewhere.safetensors"
    elsewhere.write_bytes((home / "std.safetensors").read_bytes())
    assert ids(written(weights={"STD": str(elsewhere)})) == before
    pinned = {"file": "std.safetensors", "theta": theta_of(elsewhere)}
    assert ids(written(weights={"STD": pinned})) == before
    taken(home / "std.safetensors", seed=5)
    assert not set(ids(written())) & set(before)
    assert ids(written(weights={"STD": {**pinned, "file": "gone.safetensors"}})) == before


def test_the_identity_is_the_hash_of_the_tensors(home, written):
    study = read_study(written())
    assert study.weights["STD"].theta == theta_of(home / "std.safetensors")
    spec = planning.theta(study, "STD")
    assert (
        isinstance(spec, specs.ImportedSpec)
        and spec.theta == study.weights["STD"].theta
        and costs.cost(spec) == 0
    )


def test_studies_that_train_everything_keep_their_ids(toy):
    """And weights for one pre-training change the ids of no other."""
    trained = toy()
    assert set(planning.plan(toy(weights={}))) == set(planning.plan(trained))
    other = toy(weights={"STD": {"file": "std.safetensors", "theta": 64 * "a"}})
    assert set(planning.plan(other)) == set(planning.plan(trained))  # which builds on AT alone
    noted = json.loads(json.dumps(trained.model_dump(mode="json")))
    del noted["weights"]  # as studies noted before there were any
    assert set(planning.plan(studies.Study.model_validate_json(json.dumps(noted)))) == set(
        planning.plan(trained)
    )


def test_a_surrogate_is_trained_whatever_files_there_are(toy):
    planned = planning.plan(
        toy(weights={"AT": {"file": "at.safetensors", "theta": 64 * "a"}})
    ).values()
    assert {type(spec.surrogate) for spec in planned if spec.kind == "attack"} == {
        specs.PretrainingSpec
    }
    assert {type(spec.theta) for spec in planned if spec.kind == "transfer"} == {specs.ImportedSpec}


def test_recipes_that_nothing_uses_are_not_judged(home, written):
    recipe = {**SMALL, "schedule": "steps", "milestones": [7]}  # contradicts its one epoch
    read_study(written(pretraining={"STD": recipe}))
    with pytest.raises(BadStudy, match="milestones"):
        read_study(written(pretraining={"STD": recipe}, weights={}))


def test_what_was_planned_is_found_without_the_file(home, written):
    path = written()
    study = read_study(path)
    store.write_study(study)
    noted = store.study("taken")
    assert noted["params"]["weights"]["STD"]["theta"] == study.weights["STD"].theta
    (home / "std.safetensors").unlink()
    assert ids(path) == noted["ids"] and read_study(path) == study
    assert "provisional" not in invoke("plan", path).stdout
    (store.study_dir("taken") / "study.json").write_text("{")
    assert "provisional" in invoke("plan", path).stdout


# -------------------------------------------------------------------------------------------
# refusals


def test_a_missing_robust_convnext_is_asked_for_by_its_own_name(toy, home):
    weights = {"AT": {"file": "none.safetensors", "theta": 64 * "a"}}
    for arch, name in (("timm/convnext_base", "ares-convnext-base"), ("resnet50", "at")):
        study = toy(arch=arch, weights=weights)
        (theta,) = {spec.theta for spec in planning.plan(study).values() if spec.kind == "mask"}
        said = imported.missing_file_error(theta)
        assert f"run: dwlt weights fetch {name} && " in said
        assert ("--as robustbench --arch 'timm/convnext_base' --out" in said) == ("/" in arch)


def test_a_missing_file_gives_a_provisional_plan_and_a_run_names_the_commands_that_bring_it(
    home, written
):
    path = written()
    (home / "std.safetensors").unlink()
    planned = invoke("plan", path)
    assert planned.exit_code == 0 and "provisional" in planned.stdout.splitlines()[0], (
        planned.output
    )
    line = refused("run", path, "--executor", "inline")
    assert (
        f"{home / 'std.safetensors'} is missing; want theta_STD, a resnet8 with 10 classes"
        " (mnist5k)" in line
    )
    assert (
        f"dwlt weights fetch std && dwlt weights import {home / 'resnet50-0676ba61.pth'} --as std"
        f" --out {home / 'std.safetensors'}" in line
    )
    pinned = refused(
        "run", written(weights={"STD": {"file": "std.safetensors", "theta": 64 * "b"}})
    )
    assert f"want theta_STD of sha256 {64 * 'b'}" in pinned
    assert not (store.study_dir("taken") / "study.json").exists()


def test_a_file_that_is_not_what_the_study_asks_for_is_refused_in_one_line(home, written, tmp_path):
    other = tmp_path / "other.safetensors"

    def line(**changes):
        found = refused("run", written(weights={"STD": str(other)}, **changes))
        assert f"{tmp_path / 'taken.yaml'}:" in found and "weights.STD: " in found
        assert found == refused("plan", tmp_path / "taken.yaml")
        return found

    other.write_text("<html>")
    assert "no safetensors file" in line()
    save_file(load_file(home / "std.safetensors"), other)
    assert "want one that dwlt weights import wrote" in line()
    taken(other, "at")
    assert "is theta_AT; want theta_STD, imported with --as std" in line()
    taken(other, arch="resnet20")
    assert "is a resnet20 with 10 classes; want the study's, a resnet8 with 10 (mnist5k)" in line()
    taken(other, classes=7)
    assert "with 7 classes" in line()
    taken(other)
    assert "which the study pins" in refused(
        "run", written(weights={"STD": {"file": str(other), "theta": 64 * "c"}})
    )
    for value in ({"file": str(other), "theta": "c0ffee"}, {"theta": 64 * "c"}, 3, {"path": "x"}):
        assert "weights.STD" in refused("run", written(weights={"STD": value}))


def test_normalisation_that_the_file_states_must_be_the_sources(home, written):
    taken(home / "at.safetensors", "at", mean=0.25)
    path = written(weights={"AT": "at.safetensors"})
    assert (
        "was trained on images of mean [0.25, 0.25, 0.25]; want [0.252, 0.252, 0.252]"
        in refused("plan", path)
    )
    rows = {"mnist5k": {"mean": [0.25] * 3}}
    read_study(written(weights={"AT": "at.safetensors"}, data=rows))


def test_a_file_damaged_behind_its_header_makes_no_record(home, written, caplog):
    path = home / "std.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    done = invoke("run", written(), "--executor", "inline")
    assert done.exit_code == 1 and "damaged or changed since it was written" in caplog.text
    assert not list(store.outputs().glob("records/*/*/record.json"))


def test_the_sources_images_are_wanted_only_where_a_mask_retrains(home, written, tmp_path):
    rows = {
        "far": {"loader": "imagenet", "path": "nowhere", "classes": 10, "size": 8, **ROW},
        "near": {
            "loader": "npz",
            "path": str(tmp_path / "near_{split}.npz"),
            "classes": 10,
            "size": 8,
            **ROW,
        },
    }

    def run(method, rounds):
        grid = [{**PARAMS["grid"][0], "method": [method], "rounds": [rounds], "dataset": ["near"]}]
        path = written(source="far", data=rows, grid=grid, weights={"STD": "std.safetensors"})
        return refused("run", path, "--executor", "inline")

    assert "data set near" in run("OMP", 3)  # not far, which nothing reads
    assert "data set near" in run("IMP-ST", 1)
    for split in ("train", "test"):
        n = ROW[f"{split}_images"]
        np.savez(
            tmp_path / f"near_{split}.npz",
            images=np.zeros((n, 8, 8), np.uint8),
            labels=np.arange(n) % 10,
        )
    assert "data set far" in run("IMP-ST", 2)


def test_a_record_reads_what_it_says_it_reads(toy, outputs, monkeypatch):
    asked, real = set(), batches.load_images
    monkeypatch.setattr(
        inputs,
        "load_images",
        lambda row, split, device: asked.add((row, split)) or real(row, split, device),
    )
    for spec in planning.plan(toy()).values():
        asked.clear()
        make.make(spec)
        assert asked == set(specs.reads(spec)), specs.label(spec)


# ------------------------------------------------------------------------------------------- end to
# end


@pytest.fixture
def made(home, written):
    path = written()
    done = invoke("run", path, "--executor", "inline", "--device", "cpu")
    assert done.exit_code == 0, done.output
    return path


def test_a_study_runs_from_the_file_and_its_records_hold_it_bit_for_bit(home, made):
    planned = planning.plan(read_study(made))
    theta = next(spec for spec in planned.values() if isinstance(spec, specs.ImportedSpec))
    record, given = store.read(theta), load_file(home / "std.safetensors")
    state = load_file(record.path / "weights.safetensors")
    assert state.keys() == given.keys() and all(
        torch.equal(state[name], part) for name, part in given.items()
    )
    assert (record.metrics, record.history, record.columns["theta"]) == ({}, [], theta.theta[:12])
    kinds = [
        (spec.kind, spec.method, spec.rounds) for spec in planned.values() if spec.kind == "mask"
    ]
    assert kinds == [
        ("mask", "OMP", 1),
        ("mask", "OMP", 2),
        ("mask", "IMP-ST", 1),
        ("mask", "IMP-ST", 2),
    ]
    first = {
        name: given[name]
        for name in read_mask(
            specs.record_id(next(spec for spec in planned.values() if spec.kind == "mask"))
        )
    }
    one_shot = masks.magnitude_prune(first, masks.dense_mask(first), 0.2)
    for (
        spec
    ) in planned.values():  # the first round of IMP is the one of OMP: it prunes theta_p itself
        if spec.kind == "mask" and spec.rounds == 1:
            m = read_mask(specs.record_id(spec))
            assert all(torch.equal(m[name], one_shot[name]) for name in m)
    assert store.verify() == [] and invoke("status", made).exit_code == 0
    for path in home.glob("*"):
        path.unlink()
    again = invoke("run", made, "--executor", "inline")
    assert again.exit_code == 0 and again.stdout == "", (
        "nothing is left to make, with or without the file"
    )


@pytest.mark.filterwarnings("ignore:theta_.* dense is at chance")
def test_what_reads_records_copes_with_a_theta_that_was_not_measured(made, home, tmp_path):
    table = store.table(study="taken")
    theta = table[table["kind"] == "pretraining"].iloc[0]
    assert (
        theta["SA"] != theta["SA"]
        and figures.training_curve(store.read(theta["id"]).history) is not None
    )
    assert len(store.table("pretraining")) == 1 and "provisional" not in invoke("plan", made).stdout
    for command in ("results", "verdict"):
        done = invoke(command, made)
        assert done.exit_code == 0 and done.stdout, done.output
    page = Browser("taken")
    page.results.kind.value = "pretraining"
    page.show_record(theta["id"])
    assert not page.problems.value and theta["id"] in str(
        [child.value for child in page.record.children if hasattr(child, "value")]
    )
    mask = next(iter(store.table("mask")["id"]))
    path = tickets.export_ticket(mask, tmp_path / "mask.safetensors")
    tickets.load_ticket(path, theta=home / "std.safetensors")  # the very file that was imported


def test_paths_are_absolute_or_beneath_the_folder_that_fetch_writes_to(home):
    assert imported.weights_path("std.safetensors") == home / "std.safetensors"
    assert imported.weights_path("/a/b.safetensors") == Path("/a/b.safetensors")
