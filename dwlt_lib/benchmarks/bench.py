"""`dwlt bench`: this code's steps against faithful re-creations of the authors', interleaved.

All run in one process. Times are medians over repetitions; ratios hold within one run. Rows of
other semantics (another algorithm) are marked and have no ratio.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from dwlt_lib.benchmarks import baselines, inference
from dwlt_lib.benchmarks.baselines import Result, Variant
from dwlt_lib.training import trainer

TASKS = ("at", "st", "pgd20", "surface", "decode", "inference")


# ----------------------------------------------------------------------------------------------
# the machine


def machine(device: torch.device) -> dict[str, object]:
    """The machine in general terms.

    Args:
        device: where the benchmark runs.

    Returns:
        Torch, threads and device; the GPU's name; the processor's architecture, cores and the
        instruction set that torch uses.
    """
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else "",
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "instruction set": torch.backends.cpu.get_cpu_capability(),
    }


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Whether a GPU takes TF32 for fp32, for a while; `training.configure_backend` has it not."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def _seconds(task: Callable[[], object], device: torch.device) -> float:
    """How long a task takes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    task()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


# ----------------------------------------------------------------------------------------------
# measuring


def measure(
    variants: list[Variant], device: torch.device, seconds: float, images: int
) -> list[dict[str, Any]]:
    """Time the variants in turn, as many turns as begin within `seconds` and at least one.

    Args:
        variants: what is compared; the others' results and ratios are to the first.
        device: where they run.
        seconds: how long the repetitions of all variants together are to take.
        images: how many one run handles.

    Returns:
        One row per variant: its speed in images per second (median and interquartile range), its
        ratio to the first, and how far its result lies from the first's.
    """
    results: dict[str, Result] = {}
    times: dict[str, list[float]] = {one.name: [] for one in variants}
    for one in variants:  # what is compared, and warm-up
        with _tf32(one.tf32):
            results[one.name] = (one.first or one.run)()
            one.run()
    began, turn = time.monotonic(), 0
    while turn == 0 or time.monotonic() - began < seconds:
        first = turn % len(variants)  # none has the place after a slow one every time
        for one in variants[first:] + variants[:first]:
            with _tf32(one.tf32):
                times[one.name].append(_seconds(one.run, device))
        turn += 1
    baseline, rows = variants[0].name, []
    for one in variants:
        speeds = images / np.array(times[one.name])
        low, median, high = np.percentile(speeds, [25, 50, 75])
        ratio = median / np.median(images / np.array(times[baseline]))
        row = {
            "variant": one.name,
            "img/s": round(float(median), 2),
            "IQR": round(float(high - low), 2),
            "ratio": round(float(ratio), 2) if one.same else None,
            "same": one.same,
            "repetitions": turn,
        }
        rows.append(row | _difference(results[baseline], results[one.name]))
    return rows


def _difference(baseline: Result, other: Result) -> dict[str, float]:
    delta = (baseline[0].float() - other[0].float()).abs()
    return {
        "delta": float(delta.max()),
        "pixels apart": float((delta > 1e-5).float().mean()),
        "loss": abs(baseline[1] - other[1]),
    }


# ----------------------------------------------------------------------------------------------
# what is asked for


def bench(  # noqa: PLR0913  (the command's options)
    device: torch.device,
    tasks: Collection[str],
    networks: Iterable[str],
    sizes: Iterable[int],
    batch: int,
    seconds: float,
    say: Callable[[str], None],
    cases: Sequence[inference.InferenceCase] = (),
) -> dict[str, Any]:
    """Measure everything that `dwlt bench` was asked for.

    Args:
        device: where to measure.
        tasks: of `TASKS`.
        networks: names of architectures.
        sizes: sides of images in pixels.
        batch: images per step.
        seconds: how long the repetitions of one table are to take.
        say: where a line about each variant goes.
        cases: the tickets of the task inference, one image at a time and `batch` at once.

    Returns:
        {machine, tables: [{task, network, size, batch, rows}]}, the rows those of `measure`.
    """
    trainer.configure_backend(device)
    tables: list[dict[str, Any]] = []
    found = {"machine": machine(device), "tables": tables}
    say(str(found["machine"]))

    def table(about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        say(", ".join(f"{key} {value}" for key, value in about.items() if value != ""))
        for row in rows:
            semantics = "" if row["same"] else "  (other semantics)"
            ratio = row["img/s"] / rows[0]["img/s"]
            cost = "".join(f"{row[key]:>10} {key}" for key in inference.COSTS if key in row)
            speed = f"{row['img/s']:>12.2f} /s  x{ratio:<6.2f}{cost}"
            say(f"  {row['variant']:<48}{speed}{semantics}")
        tables.append({**about, "rows": rows})

    for size in sizes if "decode" in tasks else ():
        with TemporaryDirectory(prefix="dwlt-") as folder:
            variants = baselines.decodings(size, batch, Path(folder))
            rows = measure(list(variants), torch.device("cpu"), seconds, batch)
        table({"task": "decode", "network": "", "size": size, "batch": batch}, rows)
    for case, size, count in product(cases, sizes, (1, batch)):
        rows = measure(list(inference.inferences(case, size, count)), device, seconds, count)
        for row in rows:
            row |= inference.cost(case.networks[row["variant"]], size)
        table({"task": "inference", **case.about, "size": size, "batch": count}, rows)
    steps = {*tasks} - {"decode", "inference"}
    for network, size in product(networks if steps else (), sizes):
        on = baselines.benchmark_case(network, size, batch, device)
        for task, variants in {
            "at": baselines.training_steps(on, 10),
            "st": baselines.training_steps(on, 0),
            "pgd20": baselines.evaluations(on),
            "surface": baselines.surfaces(on),
        }.items():
            if task not in tasks:
                continue
            rows = measure(list(variants), device, seconds, batch)
            table({"task": task, "network": network, "size": size, "batch": batch}, rows)
    return found
