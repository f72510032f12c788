"""Theorems on the benchmark.

Its rows compute the same, are marked where they do not, and name all that was asked.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from dwlt_lib.benchmarks import baselines, bench, inference
from dwlt_lib.cli import main
from dwlt_lib.pruning import masks
from dwlt_lib.records import store

CPU = torch.device("cpu")
TICKET = store.checkout() / "outputs" / "reference" / "ticket"


@pytest.fixture(scope="module")
def found():
    cases = [inference.read_case(TICKET, CPU)]
    return bench.bench(CPU, bench.TASKS, ("resnet8",), (8,), 8, 0.1, lambda line: None, cases)


def rows(found, task):
    return {
        row["variant"]: row
        for row in next(one for one in found["tables"] if one["task"] == task)["rows"]
    }


@pytest.mark.parametrize("task", bench.TASKS)
def test_a_row_has_its_speed_spread_and_ratio(found, task):
    table = rows(found, task)
    first = next(iter(table.values()))
    assert first["ratio"] == 1 and first["delta"] == first["loss"] == 0
    for row in table.values():
        assert row["img/s"] > 0 and row["IQR"] >= 0 and row["repetitions"] >= 1
        assert (row["ratio"] is None) == (not row["same"])


def test_exact_rows_reach_the_authors_delta_and_loss(found):
    for task in ("at", "st", "pgd20"):
        for name, row in rows(found, task).items():
            if row["same"] and "bf16" not in name:
                assert row["pixels apart"] < 0.005 and row["loss"] < 2e-4, (task, name)


def test_other_semantics_are_marked(found):
    marked = {name for name, row in rows(found, "at").items() if not row["same"]}
    assert all("eval-mode" in name for name in marked) and len(marked) >= 2


def test_the_authors_step_multiplies_masks_in_every_forward_and_attacks_without_weight_gradients():
    on = baselines.benchmark_case("resnet8", 8, 4, CPU)
    model = baselines.reference_model(on.model, on.m).train()
    dense = {name: weight.clone() for name, weight in model.named_parameters()}
    assert "conv1.weight_orig" in dense and torch.equal(
        model.conv1.weight_mask.bool(), on.m["conv1.weight"]
    )
    baselines.authors_attack(model, on.x, on.y, on.start, 2, parameters=False)
    assert all(weight.grad is None for weight in model.parameters())
    baselines.authors_attack(model, on.x, on.y, on.start, 2, parameters=True)
    assert all(weight.grad is not None for weight in model.parameters())
    delta = baselines.authors_attack(model, on.x, on.y, on.start, 3, parameters=False)
    assert (
        delta.abs().max() <= baselines.EPS + 1e-7
        and (on.x + delta).min() >= 0
        and (on.x + delta).max() <= 1
    )


def test_a_case_is_drawn_from_fixed_seeds_and_masked_as_the_paper_does():
    one, again = (
        baselines.benchmark_case("resnet20", 8, 4, CPU),
        baselines.benchmark_case("resnet20", 8, 4, CPU),
    )
    assert torch.equal(one.x, again.x) and torch.equal(one.start, again.start)
    assert masks.sparsity(one.m) == pytest.approx(1 - 0.8**baselines.ROUNDS, abs=1e-4)
    assert F.cross_entropy(one.model(one.x), one.y).isfinite()


def test_a_turn_begins_only_within_the_seconds_asked_for(monkeypatch):
    now = [0.0]

    def slow():  # ten seconds each
        now[0] += 10
        return torch.zeros(1), 0.0

    monkeypatch.setattr(bench.time, "monotonic", lambda: now[0])
    for seconds, repetitions in ((1, 1), (10, 1), (11, 2), (100, 10)):
        (row,) = bench.measure([baselines.Variant("slow", slow)], CPU, seconds, 1)
        assert row["repetitions"] == repetitions


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--task", "nonsense"], "nonsense"),
        (["--network", "vgg"], "vgg"),
        (["--task", "st", "--ticket", "mine"], "--task inference"),
        (["--task", "inference", "--ticket", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_timed_is_refused(arguments, word):
    said = CliRunner().invoke(main.app, ["bench", *arguments])
    assert said.exit_code == 2 and word in said.stderr and said.stderr.count("\n") == 1


def test_tables_are_written_as_json(tmp_path):
    file = tmp_path / "a" / "b.json"
    arguments = [
        "--device",
        "cpu",
        "--task",
        "st",
        "--network",
        "resnet8",
        "--size",
        "8",
        "--batch",
        "4",
    ]
    said = CliRunner().invoke(
        main.app, ["bench", *arguments, "--seconds", "1", "--json", str(file)]
    )
    assert said.exit_code == 0, said.output
    content = json.loads(file.read_text())
    assert {"machine", "tables"} <= set(content) and content["machine"]["cores"] >= 1
