"""Theorems on the forecast.

What files share is counted once, bytes are those on disk, the chain bounds the hours.
"""

import json
import math
import zipfile

import numpy as np
import pytest
from safetensors.torch import save
from typer.testing import CliRunner

from dwlt_lib.benchmarks import baselines, bench, forecast
from dwlt_lib.cli import main
from dwlt_lib.config import specs
from dwlt_lib.config.costs import Work, cost, forward
from dwlt_lib.config.planning import plan
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks, packed_masks
from dwlt_lib.records import outcome_files, store

AT = Work("at", "resnet50", 224, "fp32", "train")


def table(task, variant, speed, network="resnet50", size=224):
    return {
        "task": task,
        "network": network,
        "size": size,
        "batch": 8,
        "rows": [{"variant": variant, "img/s": speed}],
    }


def written(folder, *tables):
    path = folder / "rates.json"
    path.write_text(json.dumps({"tables": tables}))
    return path


@pytest.mark.parametrize("arch", architectures.ARCHITECTURES)
def test_bytes_of_weights_and_masks_are_those_that_are_written(arch):
    model = architectures.build(arch, 7, (0.5,) * 3, (0.5,) * 3)
    data = save({name: value.contiguous() for name, value in model.state_dict().items()})
    assert forecast.state_bytes(arch, 7) == pytest.approx(
        len(data), rel=0.1 if arch == "resnet8" else 0.03
    )
    theta = {name: weight.detach() for name, weight in architectures.prunable(model).items()}
    packed = len(packed_masks.pack(masks.dense_mask(theta), "0" * 64))
    assert sum(weight.numel() for weight in theta.values()) // 8 == pytest.approx(
        packed, abs=12_000
    )


def test_bytes_of_a_finished_study_are_predicted():
    """Those of the committed one, whose weights were left out."""
    found = plan(read_study(store.checkout() / "params" / "tour_full.yaml"))
    file = store.checkout() / "outputs" / "reference" / "tour_full.zip"
    with zipfile.ZipFile(file) as published:
        sizes = {member.filename: member.file_size for member in published.infolist()}
    for kind in ("mask", "surface", "trajectory", "attack"):
        there = sum(size for name, size in sizes.items() if name.startswith(f"{kind}/"))
        assert sum(
            forecast.disk_bytes(s) for s in found.values() if s.kind == kind
        ) == pytest.approx(there, rel=0.2)


@pytest.mark.parametrize("kind", ["transfer", "attack"])
def test_bytes_of_outcomes_are_those_that_are_written(toy, kind):
    spec = next(spec for spec in plan(toy()).values() if spec.kind == kind)
    n = 80_000

    def with_images(images):
        transfer = spec if kind == "transfer" else spec.transfer
        data = transfer.data.model_copy(update={"test_images": images})
        transfer = transfer.model_copy(update={"data": data})
        return transfer if kind == "transfer" else spec.model_copy(update={"transfer": transfer})

    names = {"transfer": ("SA", "RA", "SA_last", "RA_last"), "attack": ("transfer",)}[kind]
    written = outcome_files.pack({name: np.ones(n, bool) for name in names})
    added = forecast.disk_bytes(with_images(n)) - forecast.disk_bytes(with_images(1))
    assert added == pytest.approx(len(written), rel=0.03)


def test_the_rate_taken_is_that_of_the_task_the_semantics_and_the_network(tmp_path):
    rates = forecast.read_rates(
        written(
            tmp_path,
            table("st", "ours, exact, fp32", 9),
            table("at", "authors' step, fp32", 1),
            table("at", "ours, exact, fp32", 2),
            table("at", "ours, exact, bf16", 4),
            table("at", "ours, exact, fp32", 50, "resnet18", 224),
            table("at", "ours, exact, fp32", 30, "resnet50_32", 32),
        )
    )
    fits = forecast.choose(rates, AT)
    assert (fits.network, fits.variant) == ("resnet50", "ours, exact, fp32")
    assert fits.speed == 2 * 23 * forward("resnet50", 224)
    assert forecast.choose(rates, AT._replace(precision="bf16")).variant == "ours, exact, bf16"
    assert forecast.choose(rates, AT._replace(arch="resnet18")).network == "resnet18"
    assert (
        forecast.choose(rates, AT._replace(arch="resnet20", size=32)).network == "resnet50_32"
    )  # the nearest in cost
    missing = [
        AT._replace(task="pgd20"),
        AT._replace(bn="eval"),
        AT._replace(arch="resnet18", size=32),
    ]
    said = list(forecast.explain(rates, [AT, *missing]))
    assert [";" in line for line in said] == [False, True, True, True]
    assert (
        "pgd20 was not measured" in said[1]
        and "eval-mode" in said[2]
        and "scaled by GMAC" in said[3]
    )


def test_every_variant_that_is_looked_for_is_one_that_the_benchmark_measures():
    on = baselines.benchmark_case("resnet8", 8, 2, bench.torch.device("cpu"))
    offered = {
        "at": {one.name for one in baselines.training_steps(on, 1)},
        "surface": {"ours, fp32"},
        "st": {one.name for one in baselines.training_steps(on, 0)},
        "pgd20": {one.name for one in baselines.evaluations(on, 1)},
    }
    for task, bn, precision in (
        (t, b, p) for t in offered for b in ("train", "eval") for p in ("fp32", "bf16")
    ):
        if task != "surface" or precision == "fp32":
            assert forecast.variant(Work(task, "resnet8", 8, precision, bn)) in offered[task]
    assert set(forecast.PASSES) == set(offered) < set(bench.TASKS)


def test_hours_are_arithmetic_over_speed_and_the_chain_bounds_them(toy):
    whole = plan(toy())
    rates = [
        forecast.Rate(task, "resnet8", 8, 8, "ours, exact, fp32", 2.0) for task in forecast.PASSES
    ]
    seconds = forecast.seconds_of(rates)
    assert seconds(next(iter(whole.values()))) == pytest.approx(
        cost(next(iter(whole.values()))) / 2
    )
    longest = forecast.chain(whole, seconds)
    for before, after in zip(longest, longest[1:], strict=False):
        assert before in specs.upstream(after)
    ends = {}
    for id, spec in whole.items():
        ends[id] = seconds(spec) + max(
            (ends[specs.record_id(up)] for up in specs.upstream(spec)), default=0
        )
    assert sum(map(seconds, longest)) == pytest.approx(max(ends.values()))
    lines = list(forecast.hours(whole, rates, [1, 10**6]))
    assert "(the longest chain)" in next(line for line in lines if "1000000 devices" in line)
    assert "(the longest chain)" not in next(line for line in lines if "on 1 device:" in line)
    assert forecast.chain({}, seconds) == [] and list(forecast.hours({}, rates, [1]))


def test_the_ladder_is_a_chain(toy):
    grid = [
        {
            "pretraining": ["AT"],
            "method": ["IMP-ST"],
            "dataset": ["stripes"],
            "rounds": [5],
            "seeds": [0],
        }
    ]
    whole = plan(toy(grid=grid, landscapes=[], transfer_attacks=[]))
    kinds = [spec.kind for spec in forecast.chain(whole, cost)]
    assert kinds == ["pretraining", *["mask"] * 5, "transfer"]


def test_what_files_share_is_counted_once(outputs, toy):
    one = plan(toy())
    other = plan(
        toy(
            grid=[
                {
                    "pretraining": ["STD", "AT"],
                    "method": ["IMP-ST"],
                    "dataset": ["stripes"],
                    "rounds": [2],
                    "seeds": [0, 1],
                }
            ]
        )
    )
    whole = forecast.union([one, other])
    assert set(whole) == set(one) | set(other) and len(whole) < len(one) + len(other)
    seen = set()
    for id, spec in whole.items():
        assert {specs.record_id(up) for up in specs.upstream(spec)} <= seen
        seen.add(id)
    made = next(iter(whole.values()))
    store.write(made, {}, [], {}, {})
    left = forecast.missing_of(whole)
    assert set(whole) - set(left) == {specs.record_id(made)}
    lines = list(forecast.counts({"one": one, "other": other}, left))
    shared = len(one.keys() & other.keys())
    assert lines[1].split()[:4] == ["one", str(len(one)), "1", str(shared)]
    assert lines[3].split()[:5] == ["each", "record", "once", str(len(whole)), "1"]


@pytest.mark.parametrize(
    "content, word",
    [
        ("no JSON", "tables"),
        ("{}", "tables"),
        ('{"tables": []}', "pgd20"),
        ('{"tables": 3}', "tables"),
        (json.dumps({"tables": [table("at", "ours", 0)]}), "img/s 0"),
        (json.dumps({"tables": [table("at", "ours", math.inf)]}), "img/s inf"),
        (json.dumps({"tables": [table("at", "ours", "fast")]}), "img/s 'fast'"),
        (json.dumps({"tables": [table("at", "ours", 3, "vgg")]}), "'vgg'"),
        (json.dumps({"tables": [table("at", "ours", 3, size="224")]}), "'224'"),
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


def test_the_plan_of_a_study_says_records_bytes_hours_and_speeds(tmp_path, request, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    tiny = request.config.rootpath / "tests" / "tiny.yaml"
    rates = written(tmp_path, table("at", "ours, exact, fp32", 100.0, "resnet8", 8))
    found = CliRunner().invoke(
        main.app, ["plan", str(tiny), str(tiny), "--rates", str(rates), "--devices", "3"]
    )
    assert found.exit_code == 0, found.output
    whole = len(plan(read_study(tiny)))
    assert [
        line.split()[:3] for line in found.stdout.splitlines() if line.startswith("in all")
    ] == [["in", "all", str(whole)]] * 2
    for word in (
        "on disk",
        "transfers ST",
        "on 3 devices",
        "longest chain",
        "scaled by GMAC",
        "parameter file",
    ):
        assert (word in found.stdout) == (word != "parameter file"), word


def test_speeds_are_measured_here_for_every_sort_of_work_that_is_left(toy):
    kinds = forecast.kinds_of(plan(toy()))
    rates = forecast.measure(kinds, "cpu", seconds=0.01)
    assert {(rate.task, rate.network) for rate in rates} == {
        (k.task, k.arch) for k in kinds if k.task != "surface"
    }
    assert all(rate.speed > 0 for rate in rates) and list(forecast.explain(rates, kinds))
