"""Correctness per image: read as it was written, and what accuracies are compared with."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save
from seeds import numpy_rng

from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import RobustnessSpec, record_id
from dwlt_lib.records import outcome_files, store

N = 43  # not a multiple of 8


def bits(share, n=N, seed=0):
    return numpy_rng(seed).random(n) < share


@pytest.fixture
def tickets(toy, outputs):
    """The specs of the toy study's transfers, of which all that they build on is there."""
    store.write_study(toy())
    planned = plan(toy()).values()
    for spec in planned:
        if spec.kind in ("pretraining", "mask"):
            store.write(spec, {}, [], {}, {})
    return [spec for spec in planned if spec.kind == "transfer"]


def write(spec, right, images=N, **metrics):
    """A transfer whose SA and RA are the means of its bits, but for what `metrics` says."""
    means = {name: float(of.mean()) for name, of in right.items()}
    content = {outcome_files.FILE: outcome_files.pack(right)}
    metrics = {**means, "test_images": images, **metrics}
    return store.write(spec, metrics, [], content, {"seconds": 1.0})


def attacked(spec, right, count, built_on=None, **metrics):
    """The id of a robustness record of that transfer, with those outcomes."""
    means = {name: float(of.mean()) for name, of in right.items()}
    content = {outcome_files.FILE: outcome_files.pack(right)}
    robustness = RobustnessSpec(transfer=spec, count=count)
    return store.write(robustness, {**means, **metrics}, [], content, {}, built_on).name


def same(found, wanted):
    return found.keys() == wanted.keys() and all(
        found[name].dtype == bool and np.array_equal(found[name], wanted[name]) for name in wanted
    )


@pytest.mark.parametrize("n", [1, 7, 8, 9, 200])
def test_outcomes_are_read_as_they_were_written(tickets, n):
    right = {"SA": bits(0.8, n), "RA": bits(0.4, n, 1), "RA_last": bits(0.5, n, 2)}
    write(tickets[0], right, n)
    record = store.read(tickets[0])
    assert same(outcome_files.unpack(record, record), right)
    wanted = {"SA": right["SA"], "RA": right["RA"], "worst": right["SA"] & right["RA"]}
    for which in (tickets[0], record.id, record):
        assert same(store.outcomes(which), wanted)
    assert store.verify() == []


def test_the_file_has_numpys_bits_and_the_same_bytes_for_the_same_outcomes():
    right = {"SA": bits(0.8), "RA": bits(0.4, seed=1)}
    data = outcome_files.pack(right)
    assert data == outcome_files.pack(dict(reversed(right.items())))
    assert data == save({name: np.packbits(of) for name, of in right.items()})


def test_the_worst_case_is_right_under_everything_that_was_tried(tickets):
    own = {"SA": bits(0.9), "RA": bits(0.7, seed=1)}
    write(tickets[0], own)
    write(tickets[1], own)
    first = {"APGD-CE": bits(0.8, 30, 2), "worst": bits(0.7, 30, 3)}
    second = {"APGD-CE": bits(0.8, 20, 4), "Square": bits(0.8, 20, 5)}
    id = attacked(tickets[0], first, 30)
    attacked(tickets[0], second, 20)
    attacked(tickets[1], {"Square": bits(0.1, seed=6)}, 10 * N)  # all of the test images
    found = store.outcomes(tickets[0])
    wanted = own | {
        "APGD-CE": first["APGD-CE"][:20] & second["APGD-CE"],
        "Square": second["Square"],
    }
    wanted["worst"] = np.logical_and.reduce(
        [right[:20] for right in (*wanted.values(), first["worst"])]
    )
    assert same(found, wanted)
    assert all((found["worst"] <= right[:20]).all() for right in found.values())
    assert same(store.outcomes(id), first)  # what that record stores itself
    assert len(store.outcomes(tickets[1])["worst"]) == N
    for id, right in store.outcomes_of(store.table("transfer")).items():
        assert same(right, store.outcomes(id))


def test_an_attack_on_another_result_does_not_count(tickets):
    write(tickets[0], {"SA": bits(0.9), "RA": bits(0.7, seed=1)})
    attacked(tickets[0], {"Square": bits(0.1)}, N, {record_id(tickets[0]): "another"})
    assert store.outcomes(tickets[0]).keys() == {"SA", "RA", "worst"}
    (problem,) = store.verify()
    assert "another result" in problem


def test_accuracies_that_are_not_the_means_of_the_bits_are_named(tickets):
    right = {"SA": bits(0.9), "RA": bits(0.7, seed=1)}
    folders = [
        write(tickets[0], right, RA=float(right["RA"].mean()) + 1 / N),
        write(tickets[1], right, SA=float("nan")),
        write(tickets[2], right, images=N + 8),
    ]
    write(tickets[3], right)
    id = attacked(tickets[3], {"Square": bits(0.5)}, N, Square=0.25)
    problems = store.verify()
    wanted = (*(str(folder) for folder in folders), id)
    assert len(problems) == 4
    for start, said in zip(wanted, ("RA", "SA", f"bits of {N + 8}", "Square is"), strict=True):
        assert any(start in line and said in line and "\n" not in line for line in problems)


@pytest.mark.parametrize(
    "metrics", [{}, {"test_images": "43"}, {"test_images": None}, {"test_images": float("inf")}]
)
def test_bits_of_an_unknown_number_of_images_are_one_line(tickets, metrics):
    content = {outcome_files.FILE: outcome_files.pack({"SA": bits(0.9), "RA": bits(0.7)})}
    path = store.write(tickets[0], metrics, [], content, {})
    (problem,) = store.verify()
    assert str(path) in problem and "\n" not in problem
    with pytest.raises(ValueError, match=str(path)):
        store.outcomes(tickets[0])


@pytest.mark.parametrize(
    "data",
    [
        b"no safetensors",
        save({"SA": np.zeros(6), "RA": np.zeros(6)}),
        save({"SA": np.zeros(6, np.uint8), "RA": np.zeros(7, np.uint8)}),
        save({"SA": np.zeros(6, np.uint8)}),
    ],
    ids=["no safetensors", "floats", "more images", "no RA"],
)
def test_a_file_of_something_else_is_one_line(tickets, data):
    metrics = {"SA": 0.0, "RA": 0.0, "test_images": N}
    path = store.write(tickets[0], metrics, [], {outcome_files.FILE: data}, {})
    (problem,) = store.verify()
    assert str(path) in problem and "\n" not in problem
    with pytest.raises(ValueError, match=str(path)):
        store.outcomes(tickets[0])


def test_records_that_store_none_are_refused_alone_and_left_out_of_a_table(tickets):
    write(tickets[0], {"SA": bits(0.9), "RA": bits(0.7, seed=1)})
    store.write(tickets[1], {"SA": 0.5, "RA": 0.5, "test_images": N}, [], {}, {})
    with pytest.raises(ValueError, match="stores no correctness per image.*run its study again"):
        store.outcomes(tickets[1])
    assert store.outcomes_of(store.table()).keys() == {record_id(tickets[0])}
    assert store.outcomes_of(store.empty_table()) == {}


def test_outcomes_of_a_published_study_are_read_in_place(tickets, outputs):
    write(tickets[0], {"SA": bits(0.9), "RA": bits(0.7, seed=1)})
    id = attacked(tickets[0], {"Square": bits(0.5, 20)}, 20)
    note = store.study_dir("toy") / "study.json"
    study = json.loads(note.read_text())
    note.write_text(json.dumps({**study, "ids": [*study["ids"], id]}))
    was = store.outcomes(tickets[0])
    store.publish("toy", {})
    shutil.rmtree(outputs / "records")
    shutil.rmtree(store.study_dir("toy"))
    assert same(store.outcomes(tickets[0]), was) and "Square" in was
    (found,) = store.outcomes_of(store.table("transfer", study="toy")).values()
    assert same(found, was)
