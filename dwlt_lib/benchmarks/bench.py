"""`dwlt bench`: this code's steps against faithful re-creations of the authors', interleaved.

All run in one process. Times are medians over repetitions; ratios hold within one run. Rows of
other semantics (another algorithm) are marked and have no ratio.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, TypeVar

import numpy as np
import torch

from dwlt_lib.benchmarks import baselines
from dwlt_lib.benchmarks.baselines import Result, Variant
from dwlt_lib.benchmarks.forecast import PASSES
from dwlt_lib.config.costs import forward
from dwlt_lib.training import trainer

TASKS = ("at", "st", "pgd20", "prune", "surface")
Say = Callable[[str], None]
T = TypeVar("T")


# ----------------------------------------------------------------------------------------------
# the machine


def machine(device: torch.device) -> dict[str, object]:
    """The machine in general terms.

    Args:
        device: where the benchmark runs.

    Returns:
        Torch, threads and device; the GPU's name, or the processor's architecture, cores and the
        instruction set that torch uses.
    """
    found: dict[str, object] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
    }
    if device.type == "cuda":
        return {**found, "gpu": torch.cuda.get_device_name()}
    return {
        **found,
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "instruction set": torch.backends.cpu.get_cpu_capability(),
    }


def ceilings(device: torch.device) -> dict[str, float]:
    """The peaks that speeds are compared with: a large matrix product, the best of five runs each.

    Args:
        device: where they are measured.

    Returns:
        TFLOP/s in fp32 and bf16, on CUDA also in TF32.
    """
    n, formats = 2048, ["fp32", "bf16"]
    if device.type == "cuda":
        n, formats = 8192, ["fp32", "TF32", "bf16"]
    found = {}
    for name in formats:
        dtype = torch.bfloat16 if name == "bf16" else torch.float32
        a, b = torch.randn(2, n, n, device=device).to(dtype)
        with _tf32(name == "TF32"):
            best = min(_timed(lambda a=a, b=b: a @ b, device)[0] for _ in range(5))
        found[f"{name} TFLOP/s"] = float(f"{2 * n**3 / best / 1e12:.3g}")
    return found


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Whether a GPU takes TF32 for fp32, for a while; `training.configure_backend` has it not."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def _timed(task: Callable[[], T], device: torch.device) -> tuple[float, T]:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    found = task()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


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
        ratio to the first, how far its result lies from the first's, on CUDA its memory in MB.
    """
    results: dict[str, Result] = {}
    memory: dict[str, float | None] = {}
    times: dict[str, list[float]] = {one.name: [] for one in variants}
    for one in variants:  # what is compared, warm-up and memory
        with _tf32(one.arithmetic == "TF32"):
            results[one.name] = (one.first or one.run)()
            memory[one.name] = _peak_memory(one.run, device)
    began, turn = time.monotonic(), 0
    while turn == 0 or time.monotonic() - began < seconds:
        first = turn % len(variants)  # none has the place after a slow one every time
        for one in variants[first:] + variants[:first]:
            with _tf32(one.arithmetic == "TF32"):
                times[one.name].append(_timed(one.run, device)[0])
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
            "arithmetic": one.arithmetic,
            "peak MB": memory[one.name],
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


def _peak_memory(run: Callable[[], Any], device: torch.device) -> float | None:
    """Peak memory of one run on a GPU above what lay there before, in MB."""
    if device.type != "cuda":
        run()
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return round((torch.cuda.max_memory_allocated() - before) / 1e6, 1)


# ----------------------------------------------------------------------------------------------
# what is asked for


def bench(  # noqa: PLR0913  (the command's options)
    device: torch.device,
    tasks: Iterable[str],
    networks: Iterable[str],
    sizes: Iterable[int],
    batch: int,
    seconds: float,
    say: Say,
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

    Returns:
        {machine, ceilings, tables: [{task, network, size, batch, rows}]}, the rows those of
        `measure`, of networks with TFLOP/s and their fraction of the matmul peak.
    """
    trainer.configure_backend(device)
    ceiling, tables = ceilings(device), []
    found = {"machine": machine(device), "ceilings": ceiling, "tables": tables}
    say(f"{found['machine']}\n{ceiling}")

    def table(about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        say(" ".join(map(str, about.values())))
        for row in rows:
            semantics = "" if row["same"] else "  (other semantics)"
            ratio = row["img/s"] / rows[0]["img/s"]
            say(f"  {row['variant']:<48}{row['img/s']:>12.2f} /s  x{ratio:<6.2f}{semantics}")
        tables.append({**about, "rows": rows})

    if "prune" in tasks:
        rows = measure(list(baselines.thresholds(device)), device, seconds, 1)
        table({"task": "prune", "network": "resnet50"}, rows)
    for network, size in product(networks, sizes):
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
            gflop = 2 * PASSES[task] * forward(network, size)  # of one image
            for row in rows:
                row["TFLOP/s"] = row["img/s"] * gflop / 1e3
                peak = ceiling[f"{row['arithmetic']} TFLOP/s"]
                row["fraction of matmul peak"] = row["TFLOP/s"] / peak
            table({"task": task, "network": network, "size": size, "batch": batch}, rows)
    return found
