"""Whatever is flipped, cut or deleted is found, never built on, and mended by the next run."""

import itertools
import random
import re
import shutil

import pytest
from conftest import FAULTS

from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import record_id, upstream
from dwlt_lib.execution import make, runner, scheduling
from dwlt_lib.records import store


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """The toy study, made once: (study, its folder, its table)."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("whole")
    patch.setenv("DWLT_OUTPUTS", str(folder))
    study = toy()
    for spec in plan(study).values():
        make.make(spec)
    yield study, folder, table()
    patch.undo()


@pytest.fixture
def copy(whole, tmp_path, monkeypatch):
    """A copy of it, to be damaged."""
    shutil.copytree(whole[1], tmp_path / "copy")
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "copy"))
    return tmp_path / "copy"


def table():
    found = store.table()
    return found.drop(columns="seconds").to_csv(index=False)


def files_of(folder):
    return sorted(path for path in folder.glob("records/*/*/*") if path.is_file())


def flip(file, rng):
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def cut(file, rng):
    data = file.read_bytes()
    file.write_bytes(data[: rng.randrange(len(data))])


def delete(file, rng):
    file.unlink()


def named(problems):
    """The folders that problems ask to be deleted."""
    return {re.search(r"delete (\S+) and run", line)[1] for line in problems}


@pytest.mark.parametrize("harm", [flip, cut, delete], ids=lambda harm: harm.__name__)
def test_every_damage_is_found_and_nothing_else_is(copy, harm):
    rng, every = random.Random(0), files_of(copy)
    for file in itertools.islice(itertools.cycle(every), max(100 if FAULTS else 60, len(every))):
        was = file.read_bytes()
        harm(file, rng)
        own, *dependent = store.verify()
        assert str(file.parent) in own and "\n" not in own
        assert all(file.parent.name in line or "damaged" in line for line in dependent)
        file.write_bytes(was)
    assert store.verify() == []


@pytest.mark.parametrize("harm", [flip, cut], ids=lambda harm: harm.__name__)
def test_nothing_is_made_of_a_damaged_mask_or_theta(whole, copy, harm):
    for spec in plan(whole[0]).values():
        for up in upstream(spec):
            for file in sorted(store.path_of(up.kind, record_id(up)).glob("*.safetensors")):
                read = "trajectory" if spec.kind == "trajectory" else "weights"
                if up.kind == "transfer" and file.stem != read:
                    continue  # a surface reads the weights, a trajectory the path
                was = file.read_bytes()
                shutil.rmtree(store.path_of(spec.kind, record_id(spec)))
                harm(file, random.Random(1))
                if harm is flip:
                    with pytest.raises(ValueError, match=str(file)):
                        make.make(spec)
                    assert not store.exists(spec)
                else:
                    assert not store.exists(up)
                file.write_bytes(was)
                shutil.copytree(
                    whole[1] / file.parent.parent.parent.name / spec.kind / record_id(spec),
                    store.path_of(spec.kind, record_id(spec)),
                )


@pytest.mark.parametrize("seed", range(3))
def test_after_one_run_a_cut_or_emptied_study_is_whole_again(whole, copy, seed):
    rng = random.Random(seed)
    for file in rng.sample(files_of(copy), 12):
        rng.choice([cut, delete])(file, rng)
    assert scheduling.missing_specs(whole[0])
    assert runner.run_inline(whole[0], runner.RunSettings("cpu")) == runner.DONE
    assert store.verify() == [] and table() == whole[2]


@pytest.mark.parametrize("seed", range(3))
def test_after_a_repair_one_run_makes_the_study_whole_again_and_nothing_is_deleted(
    whole, copy, seed
):
    rng, before = random.Random(seed), len(files_of(copy))
    for file in rng.sample(files_of(copy), 6):
        rng.choice([flip, cut])(file, rng)
    wrong = named(store.verify())
    moved = store.repair()
    assert len(moved) == len(wrong) and store.verify() == store.repair() == []
    kept = [path for path in copy.glob("records/.aside/*/*/*") if path.is_file()]
    assert len(files_of(copy)) + len(kept) == before
    assert runner.run_inline(whole[0], runner.RunSettings("cpu")) == runner.DONE
    assert store.verify() == [] and table() == whole[2]


@pytest.mark.parametrize("seed", range(3))
def test_after_deleting_what_verify_names_one_run_makes_the_study_whole_again(whole, copy, seed):
    rng = random.Random(seed)
    for file in rng.sample(files_of(copy), 12):
        rng.choice([flip, cut, delete])(file, rng)
    for folder in named(store.verify()):
        shutil.rmtree(folder)
    assert store.verify() == []
    assert runner.run_inline(whole[0], runner.RunSettings("cpu")) == runner.DONE
    assert store.verify() == [] and table() == whole[2]


def test_a_record_made_again_with_another_result_is_told_from_the_one_that_was_built_on(
    whole, copy
):
    spec = next(spec for spec in plan(whole[0]).values() if spec.kind == "mask")
    record = store.read(spec)
    content = {name: (record.path / name).read_bytes() for name in record.files}
    shutil.rmtree(record.path)
    store.write(spec, {**record.metrics, "sparsity": 0.5}, record.history, content, record.made)
    problems = store.verify()
    assert problems and record.path.name not in {
        line.split(": ")[0].split("/")[-1] for line in problems
    }
    assert any("another result" in line for line in problems)
    shutil.rmtree(record.path)
    store.write(spec, record.metrics, record.history, content, {"seconds": 1.0})
    assert store.verify() == []  # when and where it was made is no part of the result
