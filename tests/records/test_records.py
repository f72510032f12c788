"""Theorems on records: written once and whole, found again, and damage is noticed."""

import json
import os
import shutil
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import save

from dwlt_lib.config import studies
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import record_id, upstream
from dwlt_lib.records import store

MADE = {"seconds": 1.5}


def write(spec, **metrics):
    arrays = {"grid": np.linspace(-1, 1, 3), "loss": np.ones((3, 3))}
    files = {"arrays.safetensors": save(arrays)}
    return store.write(spec, metrics or {"SA": 0.5}, [{"epoch": 1, "loss": 2.0}], files, MADE)


@pytest.fixture
def planned(toy, outputs):
    return list(plan(toy()).values())


def test_a_record_is_read_as_it_was_written(planned, outputs):
    spec = next(spec for spec in planned if spec.kind == "transfer")
    assert not store.exists(spec)
    path = write(spec, SA=0.75, RA=0.25)
    assert store.exists(spec) and path == outputs / "records" / "transfer" / record_id(spec)
    found = store.read(record_id(spec))
    assert (found.kind, found.id, found.metrics) == (
        "transfer",
        record_id(spec),
        {"SA": 0.75, "RA": 0.25},
    )
    assert found.history == [{"epoch": 1, "loss": 2.0}] and found.made == MADE
    assert found.upstream == [record_id(up) for up in upstream(spec)]
    assert type(spec).model_validate_json(json.dumps(found.spec)) == spec
    assert np.array_equal(found.arrays()["grid"], [-1, 0, 1])
    assert store.read(spec) == found


def test_what_is_not_there_is_said_to_be_missing_with_the_remedy(outputs):
    with pytest.raises(KeyError, match="run the study"):
        store.read("0" * 20)
    with pytest.raises(KeyError, match="dwlt run"):
        store.study("nowhere")


def test_a_second_write_leaves_the_first_and_nothing_else(planned):
    path = write(planned[0], SA=0.1)
    was = (path / "record.json").read_bytes()
    assert write(planned[0], SA=0.9) == path
    assert (path / "record.json").read_bytes() == was
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_write_that_is_killed_leaves_no_record(planned, monkeypatch, outputs):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        write(planned[0])
    monkeypatch.undo()
    os.environ["DWLT_OUTPUTS"] = str(outputs)
    try:
        assert not list((outputs / "records" / planned[0].kind).iterdir())
        assert not store.exists(planned[0])
        assert len(store.table()) == len(store.table(planned[0].kind)) == 0
        assert store.verify() == []
        with pytest.raises(KeyError):
            store.read(record_id(planned[0]))
        write(planned[0])
        assert store.exists(planned[0]) and len(store.table()) == 1
    finally:
        del os.environ["DWLT_OUTPUTS"]


def test_a_training_under_way_is_no_record(planned, outputs):
    folder = store.unfinished_root() / f"{record_id(planned[0])}.somebody"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"half")
    assert len(store.table()) == 0 and store.verify() == []


def test_the_table_is_sorted_and_does_not_depend_on_the_order_of_writing(
    planned, outputs, monkeypatch, tmp_path
):
    seen = []
    for name, order in (("a", planned), ("b", planned[::-1])):
        monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / name))
        for spec in order:
            write(spec, SA=len(store.label(spec)) / 100)
        seen.append(store.table())
    assert seen[0].equals(seen[1]) and len(seen[0]) == len(planned)
    kinds = seen[0]["kind"].tolist()
    assert kinds == sorted(kinds)
    transfers = seen[0][seen[0]["kind"] == "transfer"]
    assert transfers["method"].tolist() == sorted(transfers["method"])
    assert set(store.table("mask")["kind"]) == {"mask"}


def test_the_table_holds_what_the_records_say(planned):
    spec = next(s for s in planned if s.kind == "transfer" and s.mask is not None)
    write(spec, SA=0.75, RA=0.5, sparsity=0.36)
    ((_, row),) = store.table("transfer").iterrows()
    assert (
        row["pretraining"],
        row["method"],
        row["dataset"],
        row["rounds"],
        row["SA"],
        row["RA"],
        row["seconds"],
    ) == ("AT", spec.mask.method, "stripes", spec.mask.rounds, 0.75, 0.5, 1.5)
    assert row["id"] == record_id(spec) and row["sparsity"] == 0.36


def test_an_empty_table_has_the_columns_that_figures_ask_for(outputs):
    assert {
        "kind",
        "pretraining",
        "method",
        "dataset",
        "fraction",
        "regime",
        "rounds",
        "seed",
        "SA",
        "RA",
        "id",
        "seconds",
    } <= set(store.table("transfer").columns)


def test_a_study_sees_its_own_records_and_counts_what_is_missing(toy, planned):
    study = toy()
    store.write_study(study)
    other = toy(name="other", seed=1)
    write(planned[0])
    write(next(iter(plan(other).values())))
    assert len(store.table()) == 2 and store.table(study="toy")["id"].tolist() == [
        record_id(planned[0])
    ]
    assert store.missing("toy") == len(planned) - 1
    assert store.coverage("toy") == f"{len(planned) - 1} of {len(planned)} records are missing"
    found = store.study("toy")
    assert found["name"] == "toy" and found["ids"] == list(plan(study))
    assert studies.Study.model_validate_json(json.dumps(found["params"])) == study
    assert "toy" in store.study_names() and "other" not in store.study_names()


def test_a_study_has_changed_if_its_records_have_not_if_its_parameters_are_written_otherwise(
    toy, outputs
):
    store.write_study(toy())
    note = store.study_dir("toy") / "study.json"
    content = json.loads(note.read_text())
    del content["params"]["prune_fraction"]  # as before a parameter with a default was there
    note.write_text(json.dumps(content))
    assert not store.has_changed(toy()) and not store.has_changed(toy(title="another"))
    assert store.has_changed(toy(seed=9)) and store.has_changed(toy(landscapes=[]))
    assert not store.has_changed(toy(name="unplanned"))


def ancestors(spec):
    """Ids of all that a record builds on."""
    return {id for up in upstream(spec) for id in (record_id(up), *ancestors(up))}


def all_written(planned):
    for spec in planned:
        write(spec)
    assert store.verify() == []


def test_verify_finds_a_flipped_byte(planned):
    all_written(planned)
    file = store.path_of(planned[3].kind, record_id(planned[3])) / "arrays.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    problem, *rest = store.verify()
    assert str(file) in problem and "run its study again" in problem
    dependent = {record_id(spec) for spec in planned if record_id(planned[3]) in ancestors(spec)}
    assert {line.split(":")[0].split("/")[-1] for line in rest} == dependent


def test_verify_finds_a_missing_file_and_a_missing_upstream(planned):
    all_written(planned)
    (store.path_of(planned[-1].kind, record_id(planned[-1])) / "arrays.safetensors").unlink()
    (problem,) = store.verify()
    assert "arrays.safetensors" in problem
    theta = planned[0]
    folder = store.path_of(theta.kind, record_id(theta))
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    problems = store.verify()
    builds = sum(theta in upstream(spec) for spec in planned)
    assert sum(record_id(theta) in problem for problem in problems) == builds > 0


def test_verify_finds_a_record_that_cannot_be_read_or_lies_elsewhere(planned):
    all_written(planned)
    unread, moved = (store.path_of(spec.kind, record_id(spec)) for spec in planned[-1:-3:-1])
    (unread / "record.json").write_text("{")
    moved.rename(moved.parent / ("e" * 20))
    problems = store.verify()
    assert len(problems) == 2
    assert any("cannot be read" in p for p in problems) and any("says it is" in p for p in problems)


def test_a_table_notices_a_record_that_was_made_anew(planned):
    path = write(planned[0], SA=0.25)
    assert store.table()["SA"].tolist() == [0.25]
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    time.sleep(0.02)
    write(planned[0], SA=0.5)
    assert store.table()["SA"].tolist() == [0.5]


def test_a_committed_reference_is_read_like_a_study(toy, planned, outputs):
    store.write_study(toy())
    for spec in planned[:4]:
        write(spec)
    was = store.table(study="toy")
    store.publish("toy", {})
    shutil.rmtree(outputs / "records")
    shutil.rmtree(store.study_dir("toy"))
    assert "toy" in store.study_names() and store.table(study="toy").equals(was)
    assert store.missing("toy") == len(planned) - 4
    assert store.read(record_id(planned[0])).metrics == {"SA": 0.5}
    assert len(store.table()) == 0 and not store.exists(planned[0])


def test_a_committed_record_is_not_missing_for_lack_of_its_weights(toy, planned, outputs):
    store.write_study(toy())
    for spec in planned:
        store.write(spec, {}, [], {"weights.safetensors": b"weights"}, MADE)
    assert store.missing("toy") == 0
    store.publish("toy", {})
    for kind in (outputs / "records").iterdir():
        shutil.rmtree(kind)
    with zipfile.ZipFile(outputs / "reference" / "toy.zip") as published:
        assert not [name for name in published.namelist() if name.endswith("weights.safetensors")]
    assert store.missing("toy") == 0


def test_outputs_resolve_from_the_checkout_never_from_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("DWLT_OUTPUTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert store.outputs() == store.checkout() / "outputs"
    assert (store.checkout() / "dwlt_lib").is_dir()
    monkeypatch.setenv("DWLT_OUTPUTS", "elsewhere")
    assert store.outputs().is_absolute()


def test_a_record_that_lies_in_anothers_place_is_not_that_one(planned):
    all_written(planned)
    a, b = [spec for spec in planned if spec.kind == "mask"][:2]
    shutil.rmtree(store.path_of("mask", record_id(b)))
    store.path_of("mask", record_id(a)).rename(store.path_of("mask", record_id(b)))
    assert not store.exists(b)
    with pytest.raises(ValueError, match="says it is mask"):
        store.read(b)


def test_a_copy_under_another_kind_is_found_and_never_read(planned):
    all_written(planned)
    theta = planned[0]
    copy = store.outputs() / "records" / "mask" / record_id(theta)
    shutil.copytree(store.path_of(theta.kind, record_id(theta)), copy)
    assert any(str(copy) in problem for problem in store.verify())
    assert store.read(theta).path == store.path_of(theta.kind, record_id(theta))


@pytest.mark.parametrize(
    "lying", ["an empty folder", "a folder without record.json", "a cut record.json", "a file"]
)
def test_what_lies_there_without_being_a_record_gives_way(planned, lying):
    path = write(planned[0])
    assert store.exists(planned[0])
    if lying == "a cut record.json":
        (path / "record.json").write_bytes((path / "record.json").read_bytes()[:100])
    else:
        shutil.rmtree(path)
        if lying == "a file":
            path.write_text("")
        else:
            path.mkdir()
        if "without" in lying:
            (path / "arrays.safetensors").write_bytes(b"half")
    assert not store.exists(planned[0])
    assert store.verify() if lying != "a file" else True
    write(planned[0])
    assert (
        store.exists(planned[0]) and store.verify() == [] and list(path.parent.iterdir()) == [path]
    )


def test_several_processes_mend_one_folder_and_all_are_content(planned):
    path = write(planned[0])
    for _ in range(5):
        (path / "record.json").unlink()
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: write(planned[0]), range(8))) == {path}
        assert store.exists(planned[0]) and list(path.parent.iterdir()) == [path]


DAMAGED = {
    "[]": "changed",
    "null": "changed",
    "{}": "changed",
    '{"a": 1': "cannot be read",
    "": "cannot be read",
    100_000 * "[": "cannot be read",
    '{"digest": "x"}': "changed",
    "\0": "cannot be read",
}


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: text[:10])
def test_a_damaged_record_is_one_line_wherever_it_is_read(planned, text, toy):
    study = toy()
    store.write_study(study)
    path = write(planned[0])
    (path / "record.json").write_text(text)
    (problem,) = store.verify()
    assert DAMAGED[text] in problem and "\n" not in problem and len(problem) < 500
    for read in (
        lambda: store.table(),
        lambda: store.read(planned[0]),
        lambda: store.table(study="toy"),
    ):
        with pytest.raises(ValueError) as refusal:
            read()
        assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)
    lines = []
    assert len(store.table(study="toy", damaged=lines)) == 0 and len(lines) == 1
    assert store.missing("toy") == len(planned)


def test_a_changed_digit_is_seen_where_the_table_is_read(planned):
    path = write(planned[0], SA=0.25)
    file = path / "record.json"
    file.write_text(file.read_text().replace("0.25", "0.75"))
    with pytest.raises(ValueError, match="changed since it was written"):
        store.table()


def test_of_some_ids_only_these_are_read(planned):
    a, b = write(planned[0]), write(planned[1])
    (b / "record.json").write_text("{")
    assert store.table(ids=[a.name])["id"].tolist() == [a.name]


def test_a_preview_says_of_each_record_whether_it_exists(planned):
    ids = [record_id(spec) for spec in planned]
    for written in (0, 1):
        found = store.preview(planned)
        assert list(found["id"]) == ids and found["exists"].sum() == written
        write(planned[0])
    assert store.preview([]).empty


def test_a_summary_has_four_decimals_and_no_empty_columns(planned):
    theta = planned[0]
    write(theta, SA=0.123456)
    (found,) = store.summary([record_id(theta)]).to_dict("records")
    assert found["SA"] == 0.1235 and "rounds" not in found and "images" not in found


@pytest.mark.parametrize("id", ["*", "", "../x", "A" * 20, "?" * 20])
def test_an_id_is_an_id(planned, id):
    write(planned[0])
    with pytest.raises(KeyError, match="20 hexadecimal digits"):
        store.read(id)


def test_kinds_are_known_or_refused_in_one_line(outputs):
    with pytest.raises(
        ValueError, match="kind='transfers': want one of pretraining, mask, transfer"
    ):
        store.table("transfers")


@pytest.mark.parametrize(
    "text", ["[]", "null", "{", '{"name": "toy", "params": [], "ids": []}', 100_000 * "["]
)
def test_a_damaged_note_of_a_study_is_one_line(toy, outputs, text):
    store.write_study(toy())
    (store.study_dir("toy") / "study.json").write_text(text)
    with pytest.raises(KeyError) as refusal:
        store.study("toy")
    assert "cannot be read" in str(refusal.value) and "\\n" not in str(refusal.value)


def test_a_result_that_was_made_of_what_changed_meanwhile_is_told(planned):
    theta = planned[0]
    mask = next(spec for spec in planned if spec.kind == "mask" and theta in upstream(spec))
    write(theta, SA=0.1)
    before = store.results_of(upstream(mask))
    shutil.rmtree(store.path_of(theta.kind, record_id(theta)))
    write(theta, SA=0.9)
    assert before != store.results_of(upstream(mask))
    store.write(mask, {}, [], {}, MADE, before)
    (problem,) = store.verify()
    assert "another result" in problem and record_id(mask) in problem


def test_a_table_of_several_studies_says_whose_a_row_is(toy, planned):
    for name in ("toy", "twin"):
        store.write_study(toy(name=name))
    for spec in planned:
        write(spec)
    one = store.table("transfer", study="toy")
    both = store.table("transfer", study=["twin", "toy"])
    assert both["study"].value_counts().to_dict() == {"toy": len(one), "twin": len(one)}
    assert [*both["study"].cat.categories] == ["twin", "toy"]
    assert store.table("transfer", study=["toy", ""]).drop(columns="study").equals(one)


def test_the_settings_in_which_two_studies_differ(toy, outputs):
    store.write_study(toy())
    changes = {"seed": 4, "margins": {"SA": 0.5}}
    store.write_study(toy(name="other", title="Other words", **changes))
    found = store.differences("toy", "other")
    assert found.to_dict("index") == {
        "seed": {"toy": "0", "other": "4"},
        "margins.SA": {"toy": "0.02", "other": "0.5"},
    }
    assert store.differences("toy", "") is None and store.differences("toy", "toy").empty
