"""A parameter file for one's own pictures is one that runs, and nothing of theirs is touched."""

import pytest
from PIL import Image

from dwlt_lib.config.planning import plan
from dwlt_lib.data import loading
from dwlt_lib.execution import inputs, make, new_study
from dwlt_lib.execution.study_files import provisional_inputs, read_study
from dwlt_lib.models import imported
from dwlt_lib.records import store


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Ten pictures of each of three classes."""
    monkeypatch.setenv("DWLT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    for number, name in enumerate(("cat", "dog", "great owl")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(10):
            color = (80 * number, 20 * i, 0)
            Image.new("RGB", (12, 9), color).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


def test_a_folder_per_class_is_split_and_the_file_is_a_study_of_it(pictures, tmp_path):
    before = {path: path.read_bytes() for path in pictures.rglob("*.png")}
    row = new_study.write("pets", pictures, "mnist5k", 8, tmp_path / "pets.yaml")
    assert (row.classes, row.train_images, row.test_images) == (3, 24, 6)
    study = read_study(tmp_path / "pets.yaml")
    assert study.name == "pets" and len(plan(study)) > 20
    (train, labels), (test, _) = (loading.load(study.data["pets"], s) for s in ("train", "test"))
    assert train.shape == (24, 3, 8, 8) and labels.bincount().tolist() == [8, 8, 8]
    seen = {tuple(image[:, 4, 4].tolist()) for image in train}
    assert not seen & {tuple(image[:, 4, 4].tolist()) for image in test}
    assert before == {path: path.read_bytes() for path in pictures.rglob("*.png")}


def test_a_folders_name_may_be_what_yaml_reads_otherwise(pictures, tmp_path):
    strange = tmp_path / "my: pictures #1\n'"
    for part in ("train", "test"):
        (strange / part).mkdir(parents=True)
        for folder in pictures.iterdir():
            (strange / part / folder.name).symlink_to(folder)
    new_study.write("pets", strange, "mnist5k", 8, tmp_path / "pets.yaml")
    with pytest.raises(ValueError, match="control character"):  # a line break is in no path
        read_study(tmp_path / "pets.yaml")
    (tmp_path / "pets.yaml").unlink()
    strange = strange.rename(tmp_path / "my: pictures #1'")
    new_study.write("pets", strange, "mnist5k", 8, tmp_path / "pets.yaml")
    assert read_study(tmp_path / "pets.yaml").data["pets"].path == str(strange)


def test_a_split_that_is_there_is_taken_as_it_is(pictures, tmp_path):
    for part in ("train", "test"):
        (pictures.parent / "own" / part).mkdir(parents=True)
        for folder in pictures.iterdir():
            (pictures.parent / "own" / part / folder.name).symlink_to(folder)
    row = new_study.write("pets", pictures.parent / "own", "mnist5k", 8, tmp_path / "pets.yaml")
    assert row.path == str(pictures.parent / "own") and row.train_images == row.test_images == 30
    assert not (tmp_path / "data").exists()


def test_without_a_source_networks_of_the_checkout_are_pruned_and_nothing_is_fetched(
    pictures, tmp_path
):
    for part in ("train", "val"):  # as ImageNet's
        (tmp_path / "own" / part).mkdir(parents=True)
        for folder in pictures.iterdir():
            (tmp_path / "own" / part / folder.name).symlink_to(folder)
    row = new_study.write("pets", tmp_path / "own", None, 16, tmp_path / "pets.yaml")
    assert (row.train_images, row.test_images) == (30, 30)
    study = read_study(tmp_path / "pets.yaml")
    assert provisional_inputs(study) == [] and [one.name for one in study.rows()] == ["pets"]
    found = plan(study).values()
    assert inputs.check_inputs(found, "cpu") == "cpu"
    assert {spec.kind for spec in found} == {"pretraining", "mask", "transfer"}
    assert {spec.theta for spec in found if spec.kind == "pretraining"} == {
        imported.read_description(new_study.theta_folder() / f"{name}.safetensors")["theta"]
        for name in ("std", "at")
    }
    for spec in found:
        if spec.kind == "pretraining":  # the file's tensors have the hash that it states
            assert store.exists(spec) or make.make(spec, "cpu")


@pytest.mark.parametrize(
    ("name", "folder", "source", "said"),
    [
        ("Pets", "", "mnist5k", "^name 'Pets': want small letters"),
        ("digits", "", "mnist5k", "^name 'digits': want .* none of "),
        ("pets", "", "birds", "^source 'birds': want one of "),
        ("pets", "none", "mnist5k", "none: is no folder"),
        ("pets", "cat", "mnist5k", "cat: holds 0 folders"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_written(
    name, folder, source, said, pictures, tmp_path
):
    with pytest.raises(ValueError, match=said) as refusal:
        new_study.write(name, pictures / folder, source, 8, tmp_path / "pets.yaml")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "pets.yaml").exists() and not (tmp_path / "data").exists()


def test_a_split_that_lacks_its_test_images_is_refused(pictures, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train").symlink_to(pictures)
    with pytest.raises(ValueError, match=r"own: has train/ and neither test/ nor val/"):
        new_study.write("pets", tmp_path / "own", "mnist5k", 8, tmp_path / "pets.yaml")


def test_a_class_without_pictures_is_refused_and_no_link_is_left(pictures, tmp_path):
    (pictures / "bat").mkdir()
    with pytest.raises(ValueError, match="3 classes; data set pets has 4"):
        new_study.write("pets", pictures, "mnist5k", 8, tmp_path / "pets.yaml")
    (pictures / "bat" / "one.png").write_bytes((pictures / "cat" / "0.png").read_bytes())
    with pytest.raises(ValueError, match="differ|classes; data set pets has"):
        new_study.write("pets", pictures, "mnist5k", 8, tmp_path / "pets.yaml")
    assert not (tmp_path / "data" / "pets").exists()


def test_a_file_or_a_split_that_is_there_is_not_written_over(pictures, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    with pytest.raises(ValueError, match="mine.yaml: is there already"):
        new_study.write("pets", pictures, "mnist5k", 8, tmp_path / "mine.yaml")
    new_study.write("pets", pictures, "mnist5k", 8, tmp_path / "pets.yaml")
    with pytest.raises(ValueError, match="pets: is there already"):
        new_study.write("pets", pictures, "mnist5k", 8, tmp_path / "other.yaml")
