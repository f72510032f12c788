"""A study's file: read in place, the same bytes for the same study, and nothing hostile gets in."""

import json
import random
import zipfile

import pytest

from dwlt_lib.config.planning import plan
from dwlt_lib.execution import make
from dwlt_lib.pruning.ticket_files import mask_of
from dwlt_lib.records import archive, store

STUDY = json.dumps({"name": "own", "params": {}, "ids": []}).encode()
RECORD = "mask/" + 20 * "a" + "/record.json"


@pytest.fixture(scope="module")
def published(toy, tmp_path_factory):
    """The toy study, made and published once: (its file, its table, its masks)."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DWLT_OUTPUTS", str(tmp_path_factory.mktemp("published")))
    study = toy()
    store.write_study(study)
    for spec in plan(study).values():
        make.make(spec)
    masks = store.table("mask", study="toy")["id"]
    yield store.publish("toy", {}), store.table(study="toy"), {id: mask_of(id) for id in masks}
    patch.undo()


@pytest.fixture
def copy(published, tmp_path, monkeypatch):
    """That file, alone in outputs that are otherwise empty."""
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    target = tmp_path / "reference" / "toy.zip"
    target.parent.mkdir()
    target.write_bytes(published[0].read_bytes())
    return target


def everything():
    """The table and what the masks and arrays are, of the study in the file."""
    table = store.table(study="toy")
    records = [store.read(id) for id in table["id"]]
    kept = ("mask.safetensors", "arrays.safetensors")
    content = [record.read(name) for record in records for name in kept if name in record.files]
    return table.to_csv(), content


def test_the_same_study_gives_the_same_bytes(published, tmp_path):
    with zipfile.ZipFile(published[0]) as found:
        content = [(name, found.read(name)) for name in found.namelist()]
    archive.write(tmp_path / "again.zip", reversed(content))
    assert (tmp_path / "again.zip").read_bytes() == published[0].read_bytes()


def test_a_study_is_read_in_place(published, copy):
    _, table, masks = published
    assert store.table(study="toy").equals(table)
    assert store.missing("toy") == 0 and "toy" in store.study_names()
    for id, mask in masks.items():
        assert all((mask_of(id)[name] == part).all() for name, part in mask.items())
    assert store.verify() == []
    assert sorted(path.name for path in copy.parent.parent.rglob("*")) == ["reference", "toy.zip"]


def test_a_file_elsewhere_is_opened_by_its_path_and_known_by_its_study(copy, tmp_path, monkeypatch):
    copy.rename(tmp_path / "from a colleague.zip")
    assert "toy" not in store.study_names()
    monkeypatch.setenv("DWLT_STUDY_FILE", str(tmp_path / "from a colleague.zip"))
    assert "toy" in store.study_names() and len(store.table(study="toy"))


def test_weights_stayed_behind_and_are_not_read(published, copy):
    transfer = store.read(store.table("pretraining", study="toy")["id"][0])
    with pytest.raises(ValueError, match="left out when its study was published; run the study"):
        transfer.file("weights.safetensors")


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_whatever_is_flipped_or_cut_is_found_or_changes_nothing(copy, damage):
    whole, sound, rng = copy.read_bytes(), everything(), random.Random(0)
    found = 0
    for _ in range(60):
        data = bytearray(whole)
        at = rng.randrange(len(data))
        if damage == "flip":
            data[at] ^= 1 << rng.randrange(8)
        else:
            del data[at:]
        copy.write_bytes(data)
        if store.verify():
            found += 1
        else:
            assert everything() == sound
    assert found >= (60 if damage == "cut" else 30)  # some bits, such as dates, mean nothing


def hostile(name):
    """The bytes of a file that is no study's."""

    def packed(*members, **how):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as found:
            for member, data in members:
                found.writestr(member, data, **how)

    def write(target):
        nonlocal path
        path = target
        if name == "no zip":
            path.write_bytes(b"PK, but no zip" * 100)
        elif name == "empty":
            path.write_bytes(b"")
        elif name == "no study.json":
            packed((RECORD, b"{}"))
        elif name == "outside":
            packed(("study.json", STUDY), ("../" + RECORD, b"{}"))
        elif name == "absolute":
            packed(("study.json", STUDY), ("/etc/passwd", b""))
        elif name == "weights":
            packed(("study.json", STUDY), (RECORD.replace("record.json", "weights.pt"), b""))
        elif name == "a bomb":
            packed(("study.json", STUDY), (RECORD, bytes(archive.MOST_BYTES + 1)))
        elif name == "twice":
            with pytest.warns(UserWarning, match="Duplicate"):
                packed(("study.json", STUDY), ("study.json", STUDY))
        elif name == "encrypted":
            packed(("study.json", STUDY))
            data = bytearray(path.read_bytes())
            data[data.rindex(b"PK\x01\x02") + 8] |= 1
            path.write_bytes(data)
        elif name == "a study of nothing":
            packed(("study.json", b"[]"))
        elif name == "a study of nonsense":
            packed(("study.json", b"[" * 100_000))

    path = None
    return write


HOSTILE = (
    "no zip",
    "empty",
    "no study.json",
    "outside",
    "absolute",
    "weights",
    "a bomb",
    "twice",
    "encrypted",
    "a study of nothing",
    "a study of nonsense",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_studys_file_is_refused_in_one_line_and_hides_no_other_study(
    name, tmp_path, monkeypatch
):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    (tmp_path / "reference").mkdir()
    path = tmp_path / "reference" / "own.zip"
    hostile(name)(path)
    with pytest.raises(ValueError) as refusal:
        archive.study(path)
    line = str(refusal.value)
    assert str(path) in line and "dwlt publish" in line and "\n" not in line
    assert store.verify() == [line]
    assert "own" not in store.study_names() and "tour_full" in store.study_names()


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises((ValueError, OSError), match="nothing.zip"):
        archive.study(tmp_path / "nothing.zip")
