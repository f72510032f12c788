"""A study's file: read in place, the same bytes for the same study, and nothing hostile gets in."""

import json
import os
import random
import struct
import zipfile

import pytest
from typer.testing import CliRunner

from dwlt_lib.browser import servers
from dwlt_lib.cli.main import app
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import record_id
from dwlt_lib.execution import make
from dwlt_lib.pruning.tickets import read_mask
from dwlt_lib.records import archive, store
from dwlt_lib.records.record import serialize

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
    yield store.publish("toy", {}), store.table(study="toy"), {id: read_mask(id) for id in masks}
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
    """The table and what the masks, arrays and outcomes are, of the study in the file."""
    table = store.table(study="toy")
    records = [store.read(id) for id in table["id"]]
    kept = archive.PUBLISHED
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
        assert all((read_mask(id)[name] == part).all() for name, part in mask.items())
    for id, right in store.outcomes_of(table).items():
        metrics = table.set_index("id").loc[id]
        assert all(right[name].mean() == metrics[name] for name in ("SA", "RA"))
    assert store.outcomes_of(table).keys() == set(table.loc[table["kind"] == "transfer", "id"])
    assert store.verify() == []
    assert sorted(path.name for path in copy.parent.parent.rglob("*")) == ["reference", "toy.zip"]


def test_a_file_is_known_by_its_study_whatever_its_name(copy):
    copy.rename(copy.with_name("from a colleague.zip"))
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
        elif name == "another compression":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as found:
                found.writestr("study.json", STUDY)
        elif name == "a name with NUL":
            packed(("study.json", STUDY), (RECORD + "X", b""))
            path.write_bytes(path.read_bytes().replace(b"record.jsonX", b"record.json\0"))
        elif name == "ids that are no text":
            packed(("study.json", STUDY.replace(b"[]", b"[[]]")))
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
    "another compression",
    "a name with NUL",
    "ids that are no text",
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
        archive.opened(path)
    line = str(refusal.value)
    assert str(path) in line and "dwlt publish" in line and "\n" not in line
    assert store.verify() == [line]
    assert "own" not in store.study_names() and "tour_full" in store.study_names()


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises((ValueError, OSError), match="nothing.zip"):
        archive.opened(tmp_path / "nothing.zip")


@pytest.mark.parametrize("name", HOSTILE)
def test_browse_refuses_what_is_no_studys_file_before_anything_starts(name, tmp_path):
    hostile(name)(tmp_path / "own.zip")
    result = CliRunner().invoke(app, ["browse", str(tmp_path / "own.zip")])
    assert result.exit_code == 2 and result.stdout == ""
    assert str(tmp_path) in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["no zip", "no study.json", "a study of nothing"])
def test_a_study_whose_file_cannot_be_read_is_said_to_be_damaged(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    (tmp_path / "reference").mkdir()
    hostile(name)(tmp_path / "reference" / "own.zip")
    with pytest.raises(KeyError, match="own.zip.*dwlt publish"):
        store.study("own")
    with pytest.raises(KeyError, match="run the study"):
        store.read(20 * "0")


def test_browse_shows_the_study_of_a_file_in_place_before_one_made_here(
    toy, copy, tmp_path, monkeypatch
):
    opened = copy.rename(tmp_path / "from a colleague.zip")
    store.write_study(toy(title="of the same name"))
    monkeypatch.setenv("DWLT_STUDY", "")
    shown = []

    def browse(notebook, *_):
        found = store.read(store.table(study="toy")["id"].iloc[0])
        shown.append((notebook.name, os.environ["DWLT_STUDY"], found.path.resolve()))

    monkeypatch.setattr(servers, "browse", browse)
    assert CliRunner().invoke(app, ["browse", str(opened)]).exit_code == 0
    ((notebook, study, place),) = shown
    assert (notebook, study) == ("20_browse.ipynb", "toy") and place.is_relative_to(opened)
    assert not (tmp_path / "records").exists() and not store.outputs().exists()


def test_records_made_here_stand_before_those_of_a_reference(toy, published, copy):
    spec = next(spec for spec in plan(toy()).values() if spec.kind == "transfer")
    store.write(spec, {"SA": 0.125}, [], {}, {})
    table = store.table("transfer", study="toy").set_index("id")
    assert table.loc[record_id(spec), "SA"] == store.read(spec).metrics["SA"] == 0.125
    assert len(table) == (published[1]["kind"] == "transfer").sum()


def changed(path, change):
    """The file written anew, sound as a zip, with change(name, content) in each content's place."""
    with zipfile.ZipFile(path) as found:
        content = [(name, change(name, found.read(name))) for name in found.namelist()]
    archive.write(path, content)


def test_a_changed_mask_in_a_sound_zip_is_found(published, copy):
    id = next(iter(published[2]))
    changed(copy, lambda name, data: data[:-1] + b"\x55" if f"{id}/mask" in name else data)
    with pytest.raises(ValueError, match="changed since it was written; bring"):
        read_mask(id)
    assert len(store.table(study="toy")) == len(published[1])  # the records are as they were
    assert any(f"{id}/mask.safetensors" in line for line in store.verify())


@pytest.mark.parametrize(
    "text", [b"", b"{", b"{}", 100_000 * b"["], ids=["empty", "cut", "no record", "deep"]
)
def test_a_damaged_record_in_a_sound_zip_is_one_line(published, copy, text):
    id = published[1]["id"].iloc[-1]
    changed(copy, lambda name, data: text if f"{id}/record.json" in name else data)
    with pytest.raises(ValueError, match=f"{id}.*bring") as refusal:
        store.table(study="toy")
    assert "\n" not in str(refusal.value)
    lines = []
    assert len(store.table(study="toy", damaged=lines)) == len(published[1]) - 1
    assert len(lines) == 1 and lines[0] in store.verify()


@pytest.mark.parametrize("entry", ["columns", "metrics", "upstream", "files"])
def test_a_record_with_its_digest_but_of_wrong_types_is_refused(published, copy, entry):
    id = published[1]["id"].iloc[-1]

    def change(name, data):
        if f"{id}/record.json" not in name:
            return data
        entries = json.loads(data)
        del entries["digest"]
        wrong = [[]] if isinstance(entries[entry], list) else {"x": []}
        return serialize(entries | {entry: wrong}).encode()

    changed(copy, change)
    with pytest.raises(ValueError, match="is not what records.write wrote"):
        store.table(study="toy")


def test_a_record_that_builds_on_another_result_is_found_in_a_studys_file(toy, outputs, published):
    planned = plan(toy()).values()
    store.write_study(toy())
    theta = next(spec for spec in planned if spec.kind == "pretraining")
    mask = next(spec for spec in planned if spec.kind == "mask" and spec.theta == theta)
    store.write(theta, {"SA": 0.5}, [], {}, {})
    store.write(mask, {}, [], {}, {}, {record_id(theta): "of another result"})
    store.publish("toy", {})
    here, in_file = store.verify()
    assert all("another result" in line and record_id(mask) in line for line in (here, in_file))
    assert "toy.zip" in in_file


def test_no_more_is_unpacked_than_a_file_declares(published, copy):
    """A bomb that declares one byte and holds ten million: nothing comes of it but one line."""
    id = next(iter(published[2]))
    changed(copy, lambda name, data: bytes(10**7) if f"{id}/mask" in name else data)
    data = bytearray(copy.read_bytes())
    entry = data.index(f"{id}/mask".encode(), data.index(b"PK\x01\x02")) - len("mask/") - 46
    struct.pack_into("<I", data, entry + 24, 1)
    copy.write_bytes(data)
    with pytest.raises(ValueError, match="Bad CRC-32"):
        archive.read(copy, f"mask/{id}/mask.safetensors")


def test_more_bytes_than_any_file_of_a_study_has_are_refused(copy, monkeypatch):
    monkeypatch.setattr(archive, "MOST_BYTES", 3)
    with pytest.raises(ValueError, match="3 at most"):
        archive.opened(copy)


def test_figures_and_the_report_lie_beside_the_file(copy):
    figures = store.study_dir("toy") / "figures"
    figures.mkdir(parents=True)
    for name in ("figure.png", "figure.svg"):
        (figures / name).write_bytes(b"drawn")
    page = store.study_dir("toy") / "report.html"
    page.write_text("<p>page")
    was = copy.read_bytes()
    folder = store.publish("toy", {"verdict.csv": "a\n"}, page).with_suffix("")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"figures/figure.png", "report.html", "verdict.csv"}
    assert copy.read_bytes() == was  # written out of the very file that it replaces


def test_publishing_a_damaged_record_writes_nothing(toy, outputs):
    store.write_study(toy())
    mask = next(spec for spec in plan(toy()).values() if spec.kind == "mask")
    folder = store.write(mask, {}, [], {"mask.safetensors": b"bits"}, {})
    (folder / "mask.safetensors").write_bytes(b"bit")
    with pytest.raises(ValueError, match="mask.safetensors"):
        store.publish("toy", {})
    assert list((outputs / "reference").iterdir()) == []


def test_the_committed_study_is_whole(monkeypatch, tmp_path):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    (tmp_path / "reference").symlink_to(store.checkout() / "outputs" / "reference")
    assert store.verify() == []
    file = archive.opened(tmp_path / "reference" / "tour_full.zip")
    assert sorted(file.records) == sorted(file.study["ids"])
