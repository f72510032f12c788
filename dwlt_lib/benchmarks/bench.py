"""`dwlt bench`: this code's steps against faithful re-creations of its peers', interleaved.

All run in one process. Times are medians over repetitions during which no other process used the
machine; ratios hold within one run. Rows of other semantics (another algorithm) are marked and have
no ratio.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from dwlt_lib.benchmarks import baselines
from dwlt_lib.benchmarks.baselines import Variant
from dwlt_lib.benchmarks.forecast import PASSES
from dwlt_lib.config import specs
from dwlt_lib.data import batches
from dwlt_lib.evaluation import accuracy
from dwlt_lib.execution.networks import load_network
from dwlt_lib.records import store
from dwlt_lib.training import trainer

TASKS = ("at", "st", "pgd20", "prune", "surface", "precision")
BUSY = 0.1  # of one core: a repetition during which others used more is discarded
LEAST = 5  # repetitions, unless they take more than LONGEST times the seconds asked for
LONGEST = 3
ENOUGH = 20  # trained networks that a claim about precision wants
Say = Callable[[str], None]
T = TypeVar("T")


# ----------------------------------------------------------------------------------------------
# the machine


def machine(device: torch.device) -> dict[str, object]:
    """The machine in general terms.

    Args:
        device: where the benchmark runs.

    Returns:
        Torch, threads and device; the GPU's name, or the processor's architecture, cores and
        instruction sets.
    """
    found: dict[str, object] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
    }
    if device.type == "cuda":
        return {**found, "gpu": torch.cuda.get_device_name()}
    flags: set[str] = set()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = set(next((line for line in lines if line.startswith("flags")), "").split())
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    return {
        **found,
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "instruction sets": sets,
    }


def ceilings(device: torch.device) -> dict[str, float]:
    """The peaks that speeds are compared with, the best of five runs each.

    Args:
        device: where they are measured.

    Returns:
        TFLOP/s of a large matrix product in fp32 and bf16, on CUDA also in TF32; GB/s of a large
        copy, counted as read and written.
    """
    n = 8192 if device.type == "cuda" else 2048
    found = {}
    for name in ("fp32", "TF32", "bf16")[:: 1 if device.type == "cuda" else 2]:
        a, b = torch.randn(2, n, n, device=device).to(
            torch.bfloat16 if name == "bf16" else torch.float32
        )
        with _tf32(name == "TF32"):
            found[f"{name} TFLOP/s"] = float(
                f"{2 * n**3 / _best(lambda a=a, b=b: a @ b, device) / 1e12:.3g}"
            )
    big = torch.empty(2**26, device=device)
    other = torch.empty_like(big)
    found["copy GB/s"] = round(
        2 * 4 * big.numel() / _best(lambda: other.copy_(big), device) / 1e9, 1
    )
    return found


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Whether a GPU takes TF32 for fp32, for a while; `training.configure_backend` has it not."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def _best(task: Callable[[], object], device: torch.device) -> float:
    return min(_timed(task, device)[0] for _ in range(5))


def _timed(task: Callable[[], T], device: torch.device) -> tuple[float, T]:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    found = task()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


def _used() -> tuple[float, float]:
    """Seconds of processor time: of everybody (stolen time too), and of this process."""
    own = sum(os.times()[:2])
    try:
        numbers = [
            int(word)
            for word in (
                Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
            )
        ]
    except OSError:  # not Linux: nobody is seen
        return own, own
    user, nice, system, _, _, irq, soft, steal = numbers
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK"), own


# ----------------------------------------------------------------------------------------------
# measuring


@dataclass(frozen=True)
class Workload:
    """What one run of a task handles."""

    images: int
    """How many images."""
    gflop: float = 0
    """Arithmetic per image, in GFLOP; 0 if it is not counted."""
    gbyte: float = 0
    """The least memory traffic per image, in GB; 0 if it is not counted."""


def measure(
    variants: list[Variant],
    device: torch.device,
    seconds: float,
    load: Workload,
    ceiling: dict[str, float],
    say: Say,
) -> list[dict[str, Any]]:
    """Time the variants in turn.

    Repetitions end after `seconds` and at least LEAST turns, or after LONGEST times `seconds`.

    Args:
        variants: what is compared; the others' results and ratios are to the first.
        device: where they run.
        seconds: how long the repetitions of all variants together are to take.
        load: what one run handles.
        ceiling: the machine's peaks, from `ceilings`.
        say: where a line about each variant goes.

    Returns:
        One row per variant, as `dwlt bench --json` writes them.
    """
    memory, results, warm = {}, {}, {}
    for one in variants:  # what is compared, warm-up and memory
        with _tf32(one.tf32):
            results[one.name] = (one.first or one.run)()
            warm[one.name], (memory[one.name], _) = _timed(
                lambda run=one.run: _peak(run, device), device
            )
    began, turn, elapsed = time.monotonic(), 0, 0.0
    while turn == 0 or (elapsed < LONGEST * seconds and (turn < LEAST or elapsed < seconds)):
        for one in variants[turn % len(variants) :] + variants[: turn % len(variants)]:
            all_before, own_before = _used()
            with _tf32(one.tf32):
                taken, _ = _timed(one.run, device)
            all_after, own_after = _used()
            others = (all_after - all_before) - (own_after - own_before)
            quiet = others <= BUSY * taken + 0.02  # the clocks tick in hundredths
            (one.times if quiet else one.discarded).append(taken)
        turn, elapsed = turn + 1, time.monotonic() - began
    rows, first = [], None
    for one in variants:
        times = np.array(one.times or one.discarded)
        speed = load.images / times
        median = float(np.median(speed))
        first = first or median
        compiling = (
            round(max(0.0, warm[one.name] - load.images / median), 1)
            if device.type == "cuda"
            else 0.0
        )
        peak = ceiling[
            f"{'bf16' if 'bf16' in one.name else 'TF32' if one.tf32 else 'fp32'} TFLOP/s"
        ]
        arithmetic, traffic = (load.gflop, load.gbyte) if one.counted else (0, 0)
        of_matmul = round(median * arithmetic / 1e3 / peak, 3) if arithmetic else None
        of_bandwidth = round(median * traffic / ceiling["copy GB/s"], 3) if traffic else None
        row = {
            "variant": one.name,
            "img/s": round(median, 2),
            "IQR": round(float(np.subtract(*np.percentile(speed, [75, 25]))), 2),
            "ratio": round(median / first, 2) if one.same else None,
            "same": one.same,
            "peak MB": memory[one.name],
            "compile s": compiling,
            "TFLOP/s": round(median * arithmetic / 1e3, 4) if arithmetic else None,
            "fraction of matmul peak": of_matmul,
            "fraction of memory-bandwidth peak": of_bandwidth,
            **_difference(results[variants[0].name], results[one.name]),
            "kept": len(one.times),
            "discarded": len(one.discarded),
            "note": one.note if one.times else f"{one.note} never quiet".strip(),
        }
        rows.append(row)
        say(
            f"  {one.name:<44}{row['img/s']:>12.2f} /s "
            f" x{median / first:<6.2f}{'' if one.same else ' (other semantics)'}  kept"
            f" {row['kept']}, discarded {row['discarded']}"
        )
    return rows


def _difference(
    baseline: tuple[Tensor, float] | None, other: tuple[Tensor, float] | None
) -> dict[str, float]:
    if baseline is None or other is None or baseline[0].shape != other[0].shape:
        return {}
    delta = (baseline[0].float() - other[0].float()).abs()
    return {
        "delta": float(delta.max()),
        "pixels apart": float((delta > 1e-5).float().mean()),
        "loss": abs(baseline[1] - other[1]),
    }


def _peak(task: Callable[[], T], device: torch.device) -> tuple[float | None, T]:
    """Peak memory of one run above what lay there before, in MB; and its result."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found = task()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 1e6, 1), found
    try:
        Path("/proc/self/clear_refs").write_text(
            "5", encoding="utf-8"
        )  # the high-water mark starts anew
        before = _status("VmRSS")
        found = task()
        return round((_status("VmHWM") - before) / 1e3, 1), found
    except OSError:
        return None, task()


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


# ----------------------------------------------------------------------------------------------
# what is asked for


def bench(  # noqa: PLR0913  (the command's options)
    device: torch.device,
    tasks: tuple[str, ...],
    networks: tuple[str, ...],
    sizes: tuple[int, ...],
    batch: int,
    seconds: float,
    say: Say,
) -> dict[str, Any]:
    """Measure everything that `dwlt bench` was asked for.

    Args:
        device: where to measure.
        tasks: of `TASKS`.
        networks: names of architectures; those for small images are left out at sizes above 64.
        sizes: sides of images in pixels.
        batch: images per step.
        seconds: how long the repetitions of one table are to take.
        say: where a line about each variant goes.

    Returns:
        {machine, ceilings, tables: [{task, network, size, batch, rows}]}, and precision if it was
        asked for.
    """
    trainer.configure_backend(device)
    ceiling, tables = ceilings(device), []
    found = {"machine": machine(device), "ceilings": ceiling, "tables": tables}
    say(f"{found['machine']}\n{ceiling}")

    def table(task: str, variants: Iterator[Variant], load: Workload, about: dict) -> None:
        say(" ".join([task, *(str(value) for value in about.values())]))
        rows = measure(list(variants), device, seconds, load, ceiling, say)
        tables.append({"task": task, **about, "rows": rows})

    if "prune" in tasks:
        table("prune", baselines.thresholds(device), Workload(1), {"network": "resnet50"})
    for network in networks:
        for size in sizes:
            if (
                network.endswith("_32") or network in ("resnet8", "resnet20", "resnet8x2_s2")
            ) and size > 64:
                continue
            on = baselines.benchmark_case(network, size, batch, device)
            about = {"network": network, "size": size, "batch": batch}
            for task, variants in (
                ("at", baselines.training_steps(on, 10)),
                ("st", baselines.training_steps(on, 0)),
                ("pgd20", baselines.evaluations(on)),
                ("surface", baselines.surfaces(on)),
            ):
                if task in tasks:
                    passes = PASSES[task]
                    load = Workload(batch, passes * 2 * on.gmac, passes * 4 * on.elements / 1e9)
                    table(task, variants, load, about)
    if "precision" in tasks:
        found["precision"] = precision(device, say)
    return found


def precision(device: torch.device, say: Say) -> dict[str, Any]:
    """RA of trained networks by PGD in bf16 and in fp32, with equal start noise.

    bf16 may be a default only where |difference of mean RA| is at most 0.3 points over `ENOUGH`
    networks or more.

    Args:
        device: where the networks are attacked.
        say: where the line that sums up goes.

    Returns:
        Counts, means and differences of RA as fractions, and a row per network.

    Raises:
        ValueError: fewer than `ENOUGH` networks have their weights here.
    """
    rows = []
    for record in (
        store.read(id) for kind in ("pretraining", "transfer") for id in store.table(kind)["id"]
    ):
        if record.kind == "pretraining" and "recipe" not in record.spec:
            continue  # imported: its source's images need not be here
        if (
            "weights.safetensors" not in record.files
            or not (record.path / "weights.safetensors").exists()
        ):
            continue
        kind = specs.TransferSpec if record.kind == "transfer" else specs.PretrainingSpec
        spec = kind.model_validate_json(json.dumps(record.spec))
        model, test = load_network(record, device), batches.load_images(spec.data, "test", device)
        row: dict[str, Any] = {"id": record.id, "label": specs.label(spec)}
        for name in ("fp32", "bf16"):
            attack = replace(spec.evaluation, precision=name)
            rng = trainer.generator(spec.seed, "precision", device=device)
            row[name] = accuracy.robust_accuracy(model, test.floats(), test.y, attack, rng)
        rows.append(row)
    if len(rows) < ENOUGH:
        raise ValueError(
            f"{len(rows)} trained networks with weights are among the records: want {ENOUGH} or"
            " more; run a study first, or set DWLT_OUTPUTS"
        )
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("fp32", "bf16")}
    apart = [row["bf16"] - row["fp32"] for row in rows]
    found = {
        "networks": len(rows),
        "mean RA fp32": means["fp32"],
        "mean RA bf16": means["bf16"],
        "difference": float(np.mean(apart)),
        "standard error": float(np.std(apart, ddof=1) / len(rows) ** 0.5),
        "largest": max(map(abs, apart)),
        "rows": rows,
    }
    points = {name: 100 * found[name] for name in ("difference", "standard error", "largest")}
    say(
        f"precision: {len(rows)} networks, mean RA {100 * means['fp32']:.2f} % in fp32,"
        f" {100 * means['bf16']:.2f} % in bf16: {points['difference']:+.3f} points (standard error"
        f" {points['standard error']:.3f}, largest of one network {points['largest']:.2f})"
    )
    return found
