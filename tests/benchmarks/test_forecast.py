"""Theorems on the forecast.

What files share is counted once, bytes are those on disk, the chain bounds the hours.
"""

import json
import math
import re
import zipfile

import pytest
from conftest import TOY
from safetensors.torch import save
from typer.testing import CliRunner

from dwlt_lib.benchmarks import baselines, bench, forecast
from dwlt_lib.cli import main
from dwlt_lib.config import specs
from dwlt_lib.config.planning import plan
from dwlt_lib.execution.costs import Work, cost, forward, work
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks, packed_masks
from dwlt_lib.records import store

AT = Work("at", "resnet50", 224, "fp32", "train")


def table(task, variant, speed, network="resnet50", size=224):
    return {
        "task": task,
        "network": network,
        "size": size,
        "batch": 8,
        "rows": [{"variant": variant, "img/s": speed, "ratio": 1.0}],
    }


def written(folder, *tables):
    path = folder / "rates.json"
    path.write_text(json.dumps({"tables": tables}))
    return path


@pytest.mark.parametrize("arch", architectures.ARCHITECTURES)
def test_bytes_of_weights_and_masks_are_those_that_are_written(arch):
    model = architectures.build(arch, 7, (0.5,) * 3, (0.5,) * 3)
    data = save({name: value.contiguous() for name, value in model.state_dict().items()})
    state, mask = forecast.network_bytes(arch, 7)
    assert state == pytest.approx(len(data), rel=0.1 if arch == "resnet8" else 0.03)
    theta = {name: weight.detach() for name, weight in architectures.prunable(model).items()}
    packed = packed_masks.pack(masks.dense_mask(theta), "0" * 64)
    assert mask == pytest.approx(len(packed), abs=12_000)


def test_bytes_of_a_finished_study_are_predicted():
    """Those of the committed one, whose weights were left out."""
    found = plan(read_study(store.checkout() / "params" / "tour_full.yaml"))
    file = store.checkout() / "outputs" / "reference" / "tour_full.zip"
    with zipfile.ZipFile(file) as published:
        sizes = {member.filename: member.file_size for member in published.infolist()}
    for kind in ("mask", "surface", "trajectory"):
        there = sum(size for name, size in sizes.items() if name.startswith(f"{kind}/"))
        said = sum(forecast.disk_bytes(s) for s in found.values() if s.kind == kind)
        assert said == pytest.approx(there, rel=0.3)


def test_a_speed_is_that_of_the_task_the_network_the_semantics_and_the_precision(tmp_path):
    path = written(
        tmp_path,
        table("at", "authors' step, fp32", 1),
        table("at", "ours, exact, fp32", 2),
        table("at", "ours, exact, bf16", 4),
        table("at", "ours, eval-mode BatchNorm in the attack, fp32", 8),
        {"task": "prune", "network": "resnet50", "rows": [{"variant": "ours", "img/s": 9.0}]},
    )
    speeds, unit = forecast.read_speeds(path), 23 * forward("resnet50", 224)
    assert len(speeds) == 4
    for kind, speed in (
        (AT, 2),
        (AT._replace(precision="bf16"), 4),
        (AT._replace(bn="eval"), 8),
    ):
        assert speeds[forecast.timed(kind)] == speed * unit
    assert forecast.timed(AT._replace(size=32)) not in speeds


def test_every_row_that_is_looked_for_is_one_that_the_benchmark_measures():
    on = baselines.benchmark_case("resnet8", 8, 2, bench.torch.device("cpu"))
    offered = {
        "at": {one.name for one in baselines.training_steps(on, 1)},
        "surface": {one.name for one in baselines.surfaces(on)},
        "st": {one.name for one in baselines.training_steps(on, 0)},
        "pgd20": {one.name for one in baselines.evaluations(on, 1)},
    }
    for task, bn, precision in (
        (t, b, p) for t in offered for b in ("train", "eval") for p in ("fp32", "bf16")
    ):
        if task != "surface" or precision == "fp32":
            row = forecast.timed(Work(task, "resnet8", 8, precision, bn))[-1]
            assert row in offered[task]
    assert set(forecast.PASSES) == set(offered) == set(bench.TASKS) - {"decode", "inference"}


def numbers(text):
    return [float(number.replace(",", "")) for number in re.findall(r"[\d.,]*\d", text)]


def test_hours_are_arithmetic_over_speed_and_what_builds_on_one_another_bounds_them(outputs, toy):
    whole = plan(toy())
    kinds = {kind for spec in whole.values() for kind in work(spec)}
    speed = sum(map(cost, whole.values())) / 3600  # so that all takes one hour
    speeds = {forecast.timed(kind): speed for kind in kinds}
    ends = {}
    for id, spec in whole.items():
        before = [ends[specs.record_id(up)] for up in specs.upstream(spec)]
        ends[id] = cost(spec) / speed / 3600 + max(before, default=0)
    lines = list(forecast.predict(whole, [1, 10**6], speeds))
    tables = [line for line in lines if "device hours" in line]
    assert tables[0].splitlines()[-1].split()[:5] == ["in", "all", str(len(whole)), "0", "1"]
    assert "resnet8: 77,587 weights, 76,720 of them prunable" in lines
    one, many = (numbers(line)[1] for line in lines if line.startswith("wall hours"))
    assert one == 1 and many == pytest.approx(max(ends.values()), rel=0.01)
    assert not any("not measured" in line for line in lines)
    fast = {one: 2 * speed for one in speeds}
    lines = list(forecast.predict(whole, [1], fast))
    wall = next(line for line in lines if line.startswith("wall hours"))
    assert wall == "wall hours on 1 device: 0.5 at least, 30 minutes"


def test_work_that_was_not_measured_goes_at_the_slowest_speed_and_is_named(outputs, toy):
    whole = plan(toy())
    kinds = {kind for spec in whole.values() for kind in work(spec)}
    few = {forecast.timed(kind): 2.0 for kind in kinds if kind.task != "at"}
    few[forecast.timed(AT)] = 1.0  # another network's
    assert {kind.task for kind in kinds} > {"at"}
    lines = list(forecast.predict(whole, [1], few))
    named = [line for line in lines if "not measured" in line]
    assert len(named) == len({k for k in kinds if k.task == "at"})
    assert all(line.startswith("  at resnet") for line in named)


def test_what_is_there_takes_no_time_and_an_empty_plan_says_so(outputs, toy):
    whole = plan(toy())
    speeds = {forecast.timed(AT): 1.0}
    for spec in whole.values():
        store.write(spec, {}, [], {}, {})
    *_, table = forecast.predict(whole, [1], speeds)
    count = str(len(whole))
    assert table.splitlines()[-1].split()[:5] == ["in", "all", count, count, "0"]


@pytest.mark.parametrize(
    "content, word",
    [
        ("no JSON", "JSON"),
        ("{}", "tables"),
        ('{"tables": []}', "pgd20"),
        ('{"tables": 3}', "tables"),
        (json.dumps({"tables": [table("at", "ours", 0)]}), "img/s"),
        (json.dumps({"tables": [table("at", "ours", math.inf)]}), "img/s"),
        (json.dumps({"tables": [table("at", "ours", "fast")]}), "img/s"),
        (json.dumps({"tables": [table("at", "ours", 3, "vgg")]}), "network"),
        (json.dumps({"tables": [table("at", "ours", 3, size="224")]}), "size"),
        (json.dumps({"tables": [{"task": "at", "network": "resnet8", "size": 8}]}), "rows"),
        (None, "cannot be read"),
    ],
)
def test_a_file_of_rates_that_is_none_is_refused_in_one_line(content, word, tmp_path, request):
    path = tmp_path / "rates.json"
    if content is not None:
        path.write_text(content)
    tiny = request.config.rootpath / "tests" / "tiny.yaml"
    found = CliRunner().invoke(main.app, ["plan", str(tiny), "--rates", str(path)])
    assert found.exit_code == 2 and found.stderr.count("\n") == 1 and word in found.stderr, (
        found.stderr
    )
    assert found.stdout == ""


def test_the_plan_of_studies_says_records_bytes_hours_and_speeds_and_counts_once(
    tmp_path, request, monkeypatch
):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    tiny = request.config.rootpath / "tests" / "tiny.yaml"
    rates = written(tmp_path, table("at", "ours, exact, fp32", 100.0, "resnet8", 8))
    other = tmp_path / "other.yaml"
    other.write_text(tiny.read_text().replace("name: tiny", "name: other"))
    found = CliRunner().invoke(
        main.app, ["plan", str(tiny), str(other), "--rates", str(rates), "--devices", "3"]
    )
    assert found.exit_code == 0, found.output
    total = next(line for line in found.stdout.splitlines() if line.startswith("in all"))
    assert total.split()[2] == str(len(plan(read_study(tiny))))
    for word in ("GB on disk", "transfer ST", "on 3 devices", "longest chain", "not measured"):
        assert word in found.stdout, word


def test_speeds_are_measured_here_for_every_sort_of_work(toy):
    kinds = {kind for spec in plan(toy()).values() for kind in work(spec)}
    speeds = forecast.measure(kinds, "cpu", seconds=0.01)
    assert set(speeds) == kinds
    assert all(speed > 0 for speed in speeds.values())


def test_ranks_shorten_trainings_by_their_micro_batches_and_nothing_else(outputs, toy):
    speeds = {forecast.timed(kind): 1.0 for spec in plan(toy()).values() for kind in work(spec)}

    def hours(ranks, **recipe):
        settings = {p: {**TOY["pretraining"][p], **recipe} for p in TOY["pretraining"]}
        found = forecast.predict(plan(toy(pretraining=settings)), [1], speeds, ranks)
        said = "\n".join(found).splitlines()
        (chain,) = [numbers(line)[0] for line in said if line.startswith("the longest chain")]
        (whole,) = [numbers(line)[-2] for line in said if line.strip().startswith("in all")]
        return chain, whole

    alone, whole = hours(1, micro_batch_size=8)
    assert hours(4) == hours(1) == (alone, whole)  # no micro-batches, nothing to share
    assert hours(4, micro_batch_size=8)[0] < hours(3, micro_batch_size=8)[0] < alone
    assert hours(3, micro_batch_size=8) == hours(2, micro_batch_size=8)  # four parts: two waves
    assert hours(4, micro_batch_size=8)[1] == whole
