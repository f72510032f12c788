"""What a plan will take: records, bytes on disk, device hours per stage, wall hours.

Time is arithmetic over speed: GMAC of each sort of work (`costs`) over the GMAC a second measured
for it, by `dwlt bench` elsewhere or by a few steps here. Left out: decoding images, starting
kernels, waiting for a disk.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from dwlt_lib import files
from dwlt_lib.config.costs import GMAC, Work, forward, work
from dwlt_lib.config.specs import (
    AttackSpec,
    ImportedSpec,
    MaskSpec,
    PretrainingSpec,
    RobustnessSpec,
    Spec,
    SurfaceSpec,
    TrajectorySpec,
    TransferSpec,
    label,
    record_id,
    upstream,
)
from dwlt_lib.records import store

Plan = Mapping[str, Spec]

# ----------------------------------------------------------------------------------------------
# bytes

# prunable weights; bytes of the rest of a state but the head; features that enter the head (tests
# compare with models)
_PARTS = {
    "resnet8": (76_720, 5_448, 64),
    "resnet20": (270_256, 12_712, 64),
    "resnet8x2_s2": (306_016, 10_824, 128),
    "resnet18": (11_166_912, 76_960, 512),
    "resnet18_32": (11_159_232, 76_960, 512),
    "resnet50": (23_454_912, 425_384, 2048),
    "resnet50_32": (23_447_232, 425_384, 2048),
}


def state_bytes(arch: str, classes: int) -> int:
    """The size of one network's weights and buffers in fp32.

    Args:
        arch: the network.
        classes: outputs of its head.

    Returns:
        Bytes.
    """
    prunable, rest, features = _PARTS[arch]
    return 4 * prunable + rest + 4 * classes * (features + 1)


_TEXT = {
    "pretraining": 2200,
    "mask": 2700,
    "transfer": 5000,
    "surface": 6300,
    "trajectory": 6300,
    "attack": 7500,
    "robustness": 7500,
}


def disk_bytes(spec: Spec) -> int:
    """The size of a record's files, about.

    Weights count where they are kept (of a trajectory those of every epoch), a mask's bits,
    surfaces in float64, an attack's example images, a bit per test image and accuracy, and
    record.json: 2 to 8 kB, and 120 bytes per epoch.

    Args:
        spec: its description.

    Returns:
        Bytes.
    """
    text = _TEXT[spec.kind]
    if isinstance(spec, ImportedSpec):
        return text + state_bytes(spec.arch, spec.data.classes)
    if isinstance(spec, PretrainingSpec):
        return text + 120 * spec.recipe.all_epochs + state_bytes(spec.arch, spec.data.classes)
    if isinstance(spec, MaskSpec):
        epochs = spec.retrain.all_epochs if spec.retrain and spec.rounds > 1 else 0
        return text + 120 * epochs + _PARTS[spec.theta.arch][0] // 8
    if isinstance(spec, TransferSpec):
        states = {"none": 0, "selected": 1, "trajectory": spec.recipe.all_epochs + 2}[spec.keep]
        return (
            text
            + 120 * spec.recipe.all_epochs
            + states * state_bytes(spec.theta.arch, spec.data.classes)
            + (5 if spec.ra == "any" else 4) * spec.data.test_images // 8
        )
    if isinstance(spec, SurfaceSpec | TrajectorySpec):
        path = 3 * (spec.transfer.recipe.all_epochs + 1) if isinstance(spec, TrajectorySpec) else 0
        return text + 8 * (spec.points**2 + 2 * spec.points + path)
    if isinstance(spec, RobustnessSpec):
        curves = 16 * (len(spec.eps_factors) + len(spec.curve_steps))
        return text + curves + (len(spec.attacks) + 1) * spec.count // 8
    side, bits = spec.transfer.data.size, spec.transfer.data.test_images
    return text + (16 if side <= 64 else 4) * 3 * 3 * side**2 + bits // 8


# ----------------------------------------------------------------------------------------------
# speed


class Rate(NamedTuple):
    """A measured speed."""

    task: str
    """What was timed, a key of `PASSES`."""
    network: str
    """The architecture."""
    size: int
    """Side of the images in pixels."""
    batch: int
    """Images at once; 0 if the file does not say it."""
    variant: str
    """The row of the benchmark's table."""
    speed: float
    """In GMAC a second."""


# forward passes an image that a benchmark's tables count, and which task stands in where one was
# not measured
PASSES = {"at": 23, "st": 3, "pgd20": 41, "surface": 9}
_INSTEAD = {
    "at": ("at", "pgd20", "st"),
    "st": ("st", "at", "pgd20"),
    "pgd20": ("pgd20", "at", "surface", "st"),
    "surface": ("surface", "pgd20", "st", "at"),
}


def variant(kind: Work) -> str:
    """The row of a benchmark's table that does a sort of work.

    Args:
        kind: the sort of work.

    Returns:
        The name of a `baselines.Variant`.
    """
    if kind.task == "at" and kind.bn == "eval":
        return f"ours, eval-mode BatchNorm in the attack, {kind.precision}"
    if kind.task in ("at", "st"):
        return f"ours, exact, {kind.precision}"
    return "ours, attack in bf16, score in fp32" if kind.precision == "bf16" else "ours, fp32"


def read_rates(path: Path) -> list[Rate]:
    """The speeds in a file of `dwlt bench --json`, or in one of its form written by hand.

    Args:
        path: the file.

    Returns:
        One rate per row of its tables, at least one.

    Raises:
        ValueError: one line: no such file, or none with a speed in it.
    """
    want = "want what dwlt bench --json writes"
    if path.exists():
        files.regular(path)
    try:
        tables = json.loads(path.read_text(encoding="utf-8"))["tables"]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); {want}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: holds no tables of a benchmark; {want}") from error
    found = []
    try:
        for table in tables:
            if table["task"] in PASSES:
                network, size = table["network"], table["size"]
                if network not in GMAC or type(size) is not int or not 1 <= size <= 4096:
                    raise ValueError(f"network {network!r} at size {size!r}")
                for row in table["rows"]:
                    speed = row["img/s"]
                    if type(speed) not in (int, float) or not 0 < speed < math.inf:
                        raise ValueError(f"img/s {speed!r}")
                    gmac = PASSES[table["task"]] * forward(network, size)
                    found.append(
                        Rate(
                            table["task"],
                            network,
                            size,
                            table.get("batch", 0),
                            str(row["variant"]),
                            speed * gmac,
                        )
                    )
    except KeyError as error:
        raise ValueError(f"{path}: one of its tables lacks {error}; {want}") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path}: its tables are not those of a benchmark; {want}") from error
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; want a known network, pixels and a speed above 0, as dwlt bench"
            " --json writes them"
        ) from error
    if not found:
        raise ValueError(
            f"{path}: has no table of {', '.join(PASSES)}; run dwlt bench --json with one of these"
            " tasks"
        )
    return found


def choose(rates: Iterable[Rate], kind: Work) -> Rate:
    """The rate that fits a sort of work best.

    The task counts first, or what stands in for it, then the variant, the network and the nearest
    cost.

    Args:
        rates: measured speeds.
        kind: the sort of work.

    Returns:
        One of `rates`.
    """

    def distance(rate: Rate) -> tuple:
        same = (
            rate.variant == variant(kind),
            rate.variant.startswith("ours"),
            rate.variant.endswith(kind.precision),
        )
        return (
            _INSTEAD[kind.task].index(rate.task),
            *(not yes for yes in same),
            rate.network != kind.arch,
            abs(math.log(forward(rate.network, rate.size) / forward(kind.arch, kind.size))),
        )

    return min((rate for rate in rates if rate.task in _INSTEAD[kind.task]), key=distance)


def measure(kinds: Iterable[Work], device: str, seconds: float = 0.3) -> list[Rate]:
    """Speeds of this machine: of one thread, or of its GPU.

    A few steps of each sort of work are timed, with a small batch and few steps of the attack; on a
    CPU by processor time, which leaves out what others do with the cores. For forward passes alone
    the attack's rate stands in.

    Args:
        kinds: sorts of work.
        device: cpu or cuda.
        seconds: to spend on each, at least.

    Returns:
        One rate per sort of work with a backward pass.
    """
    import torch

    from dwlt_lib.benchmarks import baselines
    from dwlt_lib.training import trainer

    where, found, cases = torch.device(device), [], {}
    trainer.configure_backend(where)
    clock = (
        time.process_time if device == "cpu" else time.perf_counter
    )  # what others do with the cores is left out
    for kind in dict.fromkeys(kinds):
        if kind.task == "surface":
            continue
        slow = device == "cpu" and kind.size >= 128
        at, batch, steps = (kind.arch, kind.size), 2 if slow else 64, 1 if slow else 10
        if at not in cases:
            cases[at] = baselines.benchmark_case(*at, batch, where)
        on = cases[at]
        offered = (
            baselines.evaluations(on, steps)
            if kind.task == "pgd20"
            else baselines.training_steps(on, steps if kind.task == "at" else 0)
        )
        run = next(one.run for one in offered if one.name == variant(kind))
        passes = {"pgd20": 1 + 2 * steps, "at": 3 + 2 * steps, "st": 3}[kind.task]
        if device == "cuda":
            run()  # captures its graph
        best, began = math.inf, time.perf_counter()
        while best == math.inf or time.perf_counter() - began < seconds:
            start = clock()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, clock() - start)
        speed = batch * passes * forward(kind.arch, kind.size) / best
        found.append(Rate(kind.task, kind.arch, kind.size, batch, variant(kind), speed))
    return found


def explain(rates: Iterable[Rate], kinds: Iterable[Work]) -> Iterator[str]:
    """Which speed is taken for which work, and what is not as it should be.

    Args:
        rates: measured speeds.
        kinds: sorts of work.

    Yields:
        One line per sort of work.
    """
    for kind in kinds:
        rate = choose(rates, kind)
        wrong = [f"{kind.task} was not measured"] * (rate.task != kind.task)
        wrong += [f"{variant(kind)!r} was not measured"] * (
            rate.task == kind.task and rate.variant != variant(kind)
        )
        wrong += ["scaled by GMAC"] * ((rate.network, rate.size) != (kind.arch, kind.size))
        images = rate.speed / (PASSES[rate.task] * forward(rate.network, rate.size))
        row = (
            f"{rate.task} {rate.network} at {rate.size}, {rate.variant!r}: {_number(images)} img/s"
        )
        yield (
            f"  {kind.task:<8}{kind.arch} at {kind.size}: {_number(rate.speed)} GMAC/s, from {row}"
            f"{'; ' * bool(wrong)}{', '.join(wrong)}"
        )


# ----------------------------------------------------------------------------------------------
# time


def stage(spec: Spec) -> str:
    """The part of a study that a record belongs to.

    Args:
        spec: its description.

    Returns:
        Such as "masks" or "transfers AT".
    """
    if isinstance(spec, TransferSpec):
        return f"transfers {spec.regime}"
    if isinstance(spec, SurfaceSpec | TrajectorySpec):
        return "landscapes"
    if isinstance(spec, AttackSpec | RobustnessSpec):
        return "attacks"
    return "masks" if isinstance(spec, MaskSpec) else "pre-training"


def seconds_of(rates: list[Rate]) -> Callable[[Spec], float]:
    """How long one device makes a record, by measured speeds.

    Args:
        rates: the speeds.

    Returns:
        A function from a description to seconds.
    """
    speeds: dict[Work, float] = {}

    def seconds(spec: Spec) -> float:
        found = 0.0
        for kind, gmac in work(spec).items():
            if kind not in speeds:
                speeds[kind] = choose(rates, kind).speed
            found += gmac / speeds[kind]
        return found

    return seconds


def chain(left: Plan, seconds: Callable[[Spec], float]) -> list[Spec]:
    """The longest chain of records, each built on the one before: no number of devices is faster.

    Args:
        left: the records to make, upstream first.
        seconds: how long each takes.

    Returns:
        Their descriptions in the order in which they are made; empty if nothing is left.
    """
    ends: dict[
        str, tuple[float, str | None]
    ] = {}  # when each is there at the earliest, and after which
    for id, spec in left.items():  # upstream first
        before = max(
            ((ends[up][0], up) for up in map(record_id, upstream(spec)) if up in ends),
            default=(0.0, None),
        )
        ends[id] = before[0] + seconds(spec), before[1]
    at, found = max(ends, key=lambda id: ends[id][0], default=None), []
    while at is not None:
        found.append(left[at])
        at = ends[at][1]
    return found[::-1]


# ----------------------------------------------------------------------------------------------
# what is said


def predict(
    plans: Mapping[str, Plan],
    devices: Iterable[int],
    rates: list[Rate] | None = None,
    source: str = "",
) -> Iterator[str]:
    """Predict what plans make and take, line by line: records, bytes, hours, speeds.

    Args:
        plans: the records of each parameter file by its name; what they share is counted once.
        devices: numbers of devices to predict wall hours for.
        rates: speeds measured elsewhere; None: they are measured here, after the first lines.
        source: the file that the rates come from.

    Yields:
        Lines to print.
    """
    whole = union(plans.values())
    missing = missing_of(whole)
    kinds = kinds_of(missing)
    yield from ("", *counts(plans, missing), "", disk(whole))
    if not kinds:
        return
    origin = f"by the speeds in {source}"
    if rates is None:
        from dwlt_lib.execution.devices import resolve_device

        device = resolve_device("auto").type
        name = "GPU" if device == "cuda" else "processor, of which a device is one thread"
        origin = f"by a few steps measured now on this machine's {name}"
        rates = measure(kinds, device)
    yield from ("", *hours(missing, rates, devices))
    yield from ("", f"speeds, {origin}:", *explain(rates, kinds))


def union(plans: Iterable[Plan]) -> dict[str, Spec]:
    """The records of several plans.

    Args:
        plans: descriptions by id, upstream first.

    Returns:
        Each record once, upstream first.
    """
    return {id: spec for one in plans for id, spec in one.items()}


def missing_of(whole: Plan) -> dict[str, Spec]:
    """The records of a plan that are not there yet.

    Args:
        whole: descriptions by id, upstream first.

    Returns:
        Some of them, in the same order.
    """
    return {id: spec for id, spec in whole.items() if not store.exists(spec)}


def counts(plans: Mapping[str, Plan], left: Plan) -> Iterator[str]:
    """How many records there are, and how much arithmetic is left, by kind.

    With several parameter files each one's first, and how many of its own another plans too.

    Args:
        plans: the records of each parameter file by its name.
        left: those of them that are missing.

    Yields:
        Lines of a table.
    """
    whole = union(plans.values())
    if len(plans) > 1:
        width = max(map(len, plans)) + 2
        yield f"{'parameter file':<{width}}{'records':>9}{'there':>9}{'shared':>9}{'GMAC left':>22}"
        for name, one in plans.items():
            others = union(other for key, other in plans.items() if key != name)
            yield _row(name, one, left, width, f"{len(one.keys() & others.keys()):>9}")
        yield _row("each record once", whole, left, width, f"{'':>9}")
        yield ""
    yield f"{'kind':<16}{'records':>9}{'there':>9}{'GMAC left':>22}"
    for kind in dict.fromkeys(spec.kind for spec in whole.values()):
        yield _row(kind, {id: spec for id, spec in whole.items() if spec.kind == kind}, left, 16)
    yield _row("in all", whole, left, 16)


def _row(name: str, part: Plan, left: Plan, width: int, between: str = "") -> str:
    todo = [spec for id, spec in part.items() if id in left]
    gmac = sum(sum(work(spec).values()) for spec in todo)
    return f"{name:<{width}}{len(part):>9}{len(part) - len(todo):>9}{between}{gmac:>22,.0f}"


def disk(whole: Plan) -> str:
    """The size of all records, by what they hold.

    Args:
        whole: descriptions by id.

    Returns:
        One line.
    """
    sizes: dict[str, int] = {}
    for spec in whole.values():
        sizes[stage(spec)] = sizes.get(stage(spec), 0) + disk_bytes(spec)
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in sizes.items())
    return f"on disk when all is there: {_bytes(sum(sizes.values()))} ({parts})"


def hours(left: Plan, rates: list[Rate], devices: Iterable[int]) -> Iterator[str]:
    """Device hours per stage, and the least wall hours for each number of devices.

    A record is made on one device.

    Args:
        left: the records to make, upstream first.
        rates: measured speeds.
        devices: numbers of devices.

    Yields:
        Lines of a table, then one line per number of devices and one about the longest chain.
    """
    seconds = seconds_of(rates)
    stages: dict[str, list[float]] = {}
    for spec in left.values():
        stages.setdefault(stage(spec), []).append(seconds(spec) / 3600)
    yield f"{'stage':<16}{'records':>9}{'device hours':>22}"
    for name, each in stages.items():
        yield f"{name:<16}{len(each):>9}{_number(sum(each)):>22}"
    whole = sum(map(sum, stages.values()))
    yield f"{'in all':<16}{len(left):>9}{_number(whole):>22}"
    longest = chain(left, seconds)
    least = sum(map(seconds, longest)) / 3600
    for n in devices:
        bound = " (the longest chain)" if n > 1 and least > whole / n else ""
        yield (
            f"wall hours on {n} device{'s' * (n > 1)}: {_number(max(least, whole / n))} at"
            f" least{bound}"
        )
    if longest:
        yield (
            f"the longest chain: {len(longest)} records one after another, {_number(least)} h, to"
            f" {label(longest[-1])}; beyond {max(1, math.ceil(whole / least)) if least else 1}"
            " devices no gain"
        )


def kinds_of(left: Plan) -> list[Work]:
    """The sorts of work that records need.

    Args:
        left: the records to make.

    Returns:
        The dearest first.
    """
    found: dict[Work, float] = {}
    for spec in left.values():
        for kind, gmac in work(spec).items():
            found[kind] = found.get(kind, 0.0) + gmac
    return sorted((kind for kind, gmac in found.items() if gmac), key=lambda kind: -found[kind])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
