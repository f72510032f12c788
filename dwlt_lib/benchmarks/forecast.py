"""What a plan will take: records, bytes on disk, device hours, wall hours.

Time is arithmetic over speed: GMAC of each sort of work (`costs`) over the GMAC a second measured
for it, by `dwlt bench` elsewhere or by a few steps here. Left out: decoding images, starting
kernels, waiting for a disk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
from pydantic import BaseModel, Field, ValidationError

from dwlt_lib import files
from dwlt_lib.benchmarks import baselines
from dwlt_lib.config import specs
from dwlt_lib.execution.costs import Work, forward, work
from dwlt_lib.execution.devices import resolve_device
from dwlt_lib.models import architectures
from dwlt_lib.records import store
from dwlt_lib.training import trainer

# ----------------------------------------------------------------------------------------------
# bytes


@cache
def network_bytes(arch: str, classes: int) -> tuple[int, int]:
    """The sizes of a network on disk.

    Args:
        arch: the network.
        classes: outputs of its head.

    Returns:
        Bytes of its weights and buffers in fp32, and of a mask, a bit for each prunable weight.
    """
    model = architectures.skeleton(arch, classes)
    state = sum(value.nbytes for value in model.state_dict().values())
    return state, sum(weight.numel() for weight in architectures.prunable(model).values()) // 8


def counts(arch: str, classes: int) -> str:
    """How large a network is, and how much of it is prunable.

    Args:
        arch: the network.
        classes: outputs of its head.

    Returns:
        A line for a terminal.
    """
    model = architectures.skeleton(arch, classes)
    total = sum(weight.numel() for weight in model.parameters())
    prunable = sum(weight.numel() for weight in architectures.prunable(model).values())
    return f"{arch}: {total:,} weights, {prunable:,} of them prunable"


def disk_bytes(spec: specs.Spec) -> int:
    """The size of a record's files, about.

    Counted are weights where they are kept (of a trajectory those of every epoch), a mask's bits,
    the points of surfaces in float64, and 8 kB for all else.

    Args:
        spec: its description.

    Returns:
        Bytes.
    """
    size = 8000
    if isinstance(spec, specs.PretrainingSpec | specs.ImportedSpec):
        size += network_bytes(spec.arch, spec.data.classes)[0]
    elif isinstance(spec, specs.MaskSpec):
        network, mask = network_bytes(spec.theta.arch, spec.theta.data.classes)
        keeps = spec.method == specs.LR_REWINDING and specs.retrains(spec)
        size += mask + network * keeps
    elif isinstance(spec, specs.TransferSpec):
        states = {"none": 0, "selected": 1, "trajectory": spec.recipe.all_epochs + 2}[spec.keep]
        size += states * network_bytes(spec.theta.arch, spec.data.classes)[0]
    elif isinstance(spec, specs.SurfaceSpec | specs.TrajectorySpec):
        size += 8 * spec.points**2
    return size


# ----------------------------------------------------------------------------------------------
# speed


# forward passes an image that a benchmark's tables count
PASSES = {"at": 23, "st": 3, "pgd20": 41, "surface": 9}


Timed = tuple[str, str, int, str]  # a row that a benchmark times: task, network, size, variant
Speeds = Mapping[Timed | Work, float]  # in GMAC a second; of a sort of work, or of such a row


def timed(kind: Work) -> Timed:
    """The row of a benchmark's tables that does a sort of work.

    Args:
        kind: the sort of work.

    Returns:
        The row; its name is that of a `baselines.Variant`.
    """
    row = f"ours, exact, {kind.precision}"
    if kind.task == "at" and kind.bn == "eval":
        row = f"ours, eval-mode BatchNorm in the attack, {kind.precision}"
    elif kind.task in ("pgd20", "surface"):
        is_bf16 = kind.precision == "bf16"
        row = "ours, attack in bf16, score in fp32" if is_bf16 else "ours, fp32"
    return kind.task, kind.arch, kind.size, row


class _Row(BaseModel, strict=True):
    variant: str
    speed: Annotated[float, Field(alias="img/s", gt=0, allow_inf_nan=False)]


class _Table(BaseModel, strict=True):
    task: str
    network: specs.Arch
    size: Annotated[int, Field(ge=1, le=4096)] = 1  # pruning has none
    rows: list[_Row]


class _Benchmark(BaseModel, strict=True):
    tables: list[_Table]


def read_speeds(path: Path) -> Speeds:
    """The speeds in a file of `dwlt bench --json`, or in one of its form written by hand.

    Args:
        path: the file.

    Returns:
        GMAC a second for each row of its tables, at least one.

    Raises:
        ValueError: one line: no such file, or none with a speed in it.
    """
    want = f"want what dwlt bench --json writes, with a table of {', '.join(PASSES)}"
    try:
        tables = _Benchmark.model_validate_json(files.regular(path).read_bytes()).tables
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); {want}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {place} {first['msg']}; {want}") from error
    found: dict[Timed | Work, float] = {
        (table.task, table.network, table.size, row.variant): (
            row.speed * PASSES[table.task] * forward(table.network, table.size)
        )
        for table in tables
        if table.task in PASSES
        for row in table.rows
    }
    if not found:
        raise ValueError(f"{path}: holds no speed; {want}")
    return found


def measure(kinds: Iterable[Work], device: str, seconds: float = 0.3) -> Speeds:
    """Speeds of this machine: of one thread, or of its GPU.

    A few steps of each sort of work are timed, with few steps of the attack and, of large images, a
    small batch; on a CPU by processor time, which leaves out what others do with the cores.

    Args:
        kinds: sorts of work.
        device: cpu or cuda.
        seconds: to spend on each, at least.

    Returns:
        GMAC a second for each.
    """
    where, found = torch.device(device), {}
    trainer.configure_backend(where)
    clock = time.process_time if device == "cpu" else time.perf_counter
    case = cache(baselines.benchmark_case)
    for kind in kinds:
        batch, steps = min(kind.batch, 256), 10
        if device == "cpu":  # seconds at most
            least, steps = (2, 1) if kind.size >= 128 else (16, 5)
            batch = min(batch, max(least, int(4 / forward(kind.arch, kind.size))))
        on = case(kind.arch, kind.size, batch, where)
        variants, passes = {
            "at": (baselines.training_steps(on, steps), 3 + 2 * steps),
            "st": (baselines.training_steps(on, 0), 3),
            "pgd20": (baselines.evaluations(on, steps), 1 + 2 * steps),
            "surface": (baselines.surfaces(on), PASSES["surface"]),
        }[kind.task]
        run = next(one.run for one in variants if one.name == timed(kind)[-1])
        if device == "cuda":
            run()  # the first one loads kernels
        best, began = math.inf, time.perf_counter()
        while best == math.inf or time.perf_counter() - began < seconds:
            start = clock()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, clock() - start)
        found[kind] = batch * passes * forward(kind.arch, kind.size) / best
    return found


# ----------------------------------------------------------------------------------------------
# what is said


def predict(
    plan: Mapping[str, specs.Spec],
    devices: Iterable[int],
    speeds: Speeds | None = None,
    ranks: int = 1,
) -> Iterator[str]:
    """Predict what a plan makes and takes: records, bytes, hours.

    A record is made after those that it builds on, on one device or, where its batches go through
    the network in micro-batches, on several ranks of torchrun; what they send takes no time here.

    Args:
        plan: descriptions by id, upstream first.
        devices: numbers of devices to predict wall hours for.
        ranks: devices that share the micro-batches of a training.
        speeds: measured elsewhere; work that is not among them is taken to go at the slowest. None:
            they are measured here.

    Yields:
        Lines to print.
    """
    networks = {spec.arch: spec for spec in plan.values() if spec.kind == "pretraining"}
    for arch, spec in networks.items():
        yield counts(arch, spec.data.classes)
    needs = {id: {} if store.exists(spec) else work(spec) for id, spec in plan.items()}
    kinds = list(dict.fromkeys(kind for need in needs.values() for kind in need))
    if speeds is None and kinds:
        device = resolve_device("auto").type
        which = "GPU" if device == "cuda" else "processor; a device is one thread"
        yield f"measuring a few steps of each sort of work on this machine's {which}"
        speeds = measure(kinds, device)
    speeds = speeds or {}
    slowest = min(speeds.values(), default=math.inf)
    rows: list[tuple] = []
    ends: dict[str, float] = {}  # hours until each record is there, at the earliest
    for id, spec in plan.items():
        seconds = {
            kind: gmac / (_speed(speeds, kind) or slowest) for kind, gmac in needs[id].items()
        }
        shared = _shared_by(spec, ranks)
        alone = sum(
            one / (shared if kind.task in ("at", "st") else 1) for kind, one in seconds.items()
        )
        name = spec.kind
        if isinstance(spec, specs.TransferSpec):
            name += f" {spec.regime}"
        whole = sum(seconds.values()) / 3600
        rows.append((name, 1, store.exists(spec), whole, disk_bytes(spec)))
        before = [ends[specs.record_id(up)] for up in specs.upstream(spec)]
        ends[id] = max(before, default=0.0) + alone / 3600
    columns = ["kind", "records", "there", "device hours", "GB on disk"]
    table = pd.DataFrame(rows, columns=columns).groupby("kind", sort=False).sum()
    table["GB on disk"] /= 1e9
    table.loc["in all"] = table.sum()
    yield table.to_string(index_names=False, float_format=_number)
    chain, whole = max(ends.values()), sum(row[3] for row in rows)
    if whole == 0:
        return
    for n in devices:
        wall = max(chain, whole / n)
        minutes = f", {60 * wall:.0f} minutes" if wall < 2 else ""
        where = f"{n} device{'' if n == 1 else 's'}"
        yield f"wall hours on {where}: {_number(wall)} at least{minutes}"
    on_ranks = f" on {ranks} ranks" if ranks > 1 else ""
    yield (
        f"the longest chain of records that build on one another takes {_number(chain)}"
        f" hours{on_ranks}: beyond {math.ceil(whole / chain)} devices no gain"
    )
    yield "speeds in GMAC a second:"
    for kind in kinds:
        speed = _speed(speeds, kind)
        said = f"not measured; taken is the slowest, {_number(slowest)}"
        if speed is not None:
            said = _number(speed)
        yield f"  {' '.join(map(str, timed(kind)))}, {kind.batch} at a time: {said}"


def _speed(speeds: Speeds, kind: Work) -> float | None:
    return speeds.get(kind, speeds.get(timed(kind)))


def _shared_by(spec: specs.Spec, ranks: int) -> float:
    """How many times as fast ranks train a record as one device does."""
    parts = max(1, specs.micro_batches(spec))
    return parts / math.ceil(parts / ranks)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value.is_integer() else f"{value:.3g}"
