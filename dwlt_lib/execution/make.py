"""make(spec, device): one function a kind of record, and the only path that makes one."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from dwlt_lib import __version__, files
from dwlt_lib.analysis import loss_landscape
from dwlt_lib.config.costs import ENOUGH, cost
from dwlt_lib.config.datasets import DataSet
from dwlt_lib.config.recipes import PGD, TrainingConfig
from dwlt_lib.config.specs import (
    AttackSpec,
    ImportedSpec,
    MaskSpec,
    PretrainingSpec,
    Spec,
    SurfaceSpec,
    TrajectorySpec,
    TransferSpec,
    label,
    reads,
    record_id,
    retrains,
    upstream,
)
from dwlt_lib.data import fingerprints
from dwlt_lib.data.batches import Images, StreamedImages, load_images
from dwlt_lib.data.subsets import subset
from dwlt_lib.evaluation.accuracy import (
    attacked,
    correct,
    mean_loss,
    robust_accuracy,
    robust_accuracy_any,
    standard_accuracy,
)
from dwlt_lib.models import imported
from dwlt_lib.models.architectures import build, new_head, prunable
from dwlt_lib.models.tensors import fingerprint
from dwlt_lib.pruning.imp import at_random, imp_round, one_shot, prunable_weights
from dwlt_lib.pruning.masks import (
    dense_mask,
    kept,
    pack,
    packed_header,
    sparsity,
    unpack,
)
from dwlt_lib.pruning.ticket_files import load_checkpoint
from dwlt_lib.records import store
from dwlt_lib.training import unfinished
from dwlt_lib.training.trainer import Fitted, State, fit, generator, settle
from dwlt_lib.training.unfinished import CHECKPOINT

Progress = Callable[[dict[str, float]], None]
Made = tuple[
    dict[str, float], list[dict[str, float]], dict[str, bytes | Path]
]  # metrics, history, files


def resolve(device: str) -> torch.device:
    """auto: the GPU if there is one; else as asked."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={device!r}: want auto, cpu or cuda")
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ValueError("device='cuda': no CUDA device is visible here; want cpu or auto")
    return torch.device("cuda" if device != "cpu" and there else "cpu")


def make(spec: Spec, device: str | torch.device = "cpu", progress: Progress | None = None) -> str:
    """The id of this record, made now if it is not there yet, with whatever it builds on.

    progress: called after every epoch with its row of history. Training stops with
    training.OutOfTime when the environment's DWLT_DEADLINE (seconds since 1970) would pass; its
    checkpoint stays and is continued from next time.
    """
    if store.exists(spec):
        return record_id(spec)
    for up in upstream(spec):
        make(up, device, progress)
    device = device if isinstance(device, torch.device) else resolve(device)
    settle(device)
    began, built_on = time.time(), store.results_of(upstream(spec))
    metrics, history, content = _KINDS[type(spec)](spec, device, progress)
    for row, split in reads(spec):  # not while it was made, either
        _demand(row, split)
    if store.results_of(upstream(spec)) != built_on:
        raise ValueError(
            f"{label(spec)}: what it builds on was made anew meanwhile; run the same command again"
        )
    store.write(
        spec,
        metrics,
        history,
        content,
        {
            "seconds": round(time.time() - began, 3),
            "gmac": cost(spec),
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **_circumstances(device),
        },
        built_on,
    )
    unfinished.remove(store.unfinished_root(), record_id(spec))
    return record_id(spec)


# ---------------------------------------------------------------------------------------------- one
# a kind


def _pretraining(spec: PretrainingSpec, device: torch.device, progress: Progress | None) -> Made:
    model = _fresh(spec, device)
    train, validation = _budget(spec.data, 1.0, "stratified", 0, spec.recipe, device)
    found = _fit(
        model,
        dense_mask(prunable(model)),
        train,
        validation,
        spec,
        progress,
    )
    return (
        _tested(model, found, spec, device),
        found.history,
        {"weights.safetensors": save(_cpu(found.selected))},
    )


def _imported(spec: ImportedSpec, device: torch.device, progress: Progress | None) -> Made:
    """theta_p's file as a record.

    Nothing is measured, since the source's images need not be here.
    """
    if problem := imported.missing_file_error(spec):
        raise ValueError(problem)
    path = imported.path_of(spec.file)
    found = load_checkpoint(path)
    said = {**found.about, "theta": fingerprint(found.weights)}
    if wrong := imported.mismatch(said, spec.pretraining, spec.arch, spec.data, spec.theta):
        raise ValueError(f"{path} {wrong}")
    return {}, [], {"weights.safetensors": save(found.weights)}


def _mask(spec: MaskSpec, device: torch.device, progress: Progress | None) -> Made:
    model = network(store.read(spec.theta), device)
    theta = _weights(spec.theta, device)
    weights, history, metrics = prunable_weights(model, theta), [], {}
    if spec.method == "RP":
        m = at_random(weights, spec.rounds, spec.prune_fraction, spec.seed)
    elif not retrains(spec):  # IMP's first round, too, prunes theta_p before any training
        m = one_shot(weights, spec.rounds, spec.prune_fraction)
    else:
        before = _read_mask(upstream(spec)[1], theta)
        train, _ = _budget(spec.theta.data, 1.0, "stratified", 0, spec.retrain, device)
        m, found = imp_round(
            model,
            theta,
            before,
            spec.prune_fraction,
            spec.retrain,
            train,
            spec.seed,
            _checkpoint(spec),
            _deadline(),
            progress,
        )
        history = found.history
        test = _images(spec.theta.data, "test", device)
        metrics["SA_source"] = standard_accuracy(model, test.lazy_batches(), test.y)
    metrics |= {"sparsity": sparsity(m), "kept": kept(m)}
    return metrics, history, {"mask.safetensors": pack(m, fingerprint(theta))}


def _transfer(spec: TransferSpec, device: torch.device, progress: Progress | None) -> Made:
    model = ticket(spec, device)
    m = _ticket_mask(spec, model)
    train, validation = _budget(
        spec.data, spec.fraction, spec.subset_rule, spec.subset_seed, spec.recipe, device
    )
    folder = _checkpoint(spec).parent
    found = _fit(
        model,
        m,
        train,
        validation,
        spec,
        progress,
        partial(_keep, folder) if spec.keep == "trajectory" else None,
    )
    metrics = {
        "sparsity": sparsity(m),
        **_tested(model, found, spec, device),
        "train_images": len(train),
        "validation_images": len(validation) if validation else 0,
    }
    content: dict[str, bytes | Path] = {}
    if spec.keep != "none":
        content["weights.safetensors"] = save(_cpu(found.selected))
    if spec.keep == "trajectory":
        content["trajectory.safetensors"] = _path(folder, len(found.history))
    return metrics, found.history, content


def _keep(folder: Path, epoch: int, state: State) -> None:
    """Each state of a path is written once, as its epoch ends; its name says what is in it."""
    data = save(_cpu(state))
    for before in folder.glob(
        f"state-{epoch:04d}-*"
    ):  # of the same epoch, which a kill had repeated
        before.unlink()
    files.write(folder / f"state-{epoch:04d}-{hashlib.sha256(data).hexdigest()}", data)


def _path(folder: Path, epochs: int) -> Path:
    """One file of all states, from before training to after the last epoch."""
    states = {}
    for epoch in range(epochs + 1):
        kept = sorted(folder.glob(f"state-{epoch:04d}-*"))
        if len(kept) != 1 or hashlib.sha256(kept[0].read_bytes()).hexdigest() != kept[0].name[-64:]:
            shutil.rmtree(folder)
            raise ValueError(
                f"{folder}: the state after epoch {epoch} is missing or changed since it was"
                " written; run the same command again, which trains this ticket anew"
            )
        states |= {f"{epoch:04d}/{name}": value for name, value in load_file(kept[0]).items()}
    whole = folder / "trajectory"
    save_file(states, whole)
    shutil.copymode(kept[0], whole)  # safetensors does not ask the umask
    return whole


def _surface(spec: SurfaceSpec, device: torch.device, progress: Progress | None) -> Made:
    model = network(store.read(spec.transfer), device)
    m, x, y = _mask_and_images(spec, model, device)
    directions = [
        loss_landscape.direction(model, m, generator(spec.seed, purpose))
        for purpose in ("d1", "d2")
    ]
    half = spec.points // 2
    grid = torch.arange(-half, half + 1, dtype=torch.float64) * (
        spec.span / half
    )  # linspace misses 0 by a rounding
    loss = loss_landscape.surface(model, m, *directions, x, y, grid)
    centre = mean_loss(model, x, y)
    arrays = {"grid": grid, "loss": loss}
    return {"loss_centre": centre, "images_used": len(y)}, [], {"arrays.safetensors": save(arrays)}


def _trajectory(spec: TrajectorySpec, device: torch.device, progress: Progress | None) -> Made:
    saved = load_file(
        store.read(spec.transfer).file("trajectory.safetensors")
    )  # from the disk as it is needed
    states: list[dict[str, Tensor]] = []
    for key in sorted(saved):
        epoch, name = key.split("/", 1)
        if int(epoch) == len(states):
            states.append({})
        states[int(epoch)][name] = saved[key]
    model = network(store.read(spec.transfer), device)
    model.load_state_dict(states[-1])
    m, x, y = _mask_and_images(spec, model, device)
    names = [name for name, _ in model.named_parameters()]
    path = loss_landscape.trajectory([{name: state[name] for name in names} for state in states])
    grid_x, grid_y = loss_landscape.grid_around(path.coords, spec.points)
    loss = loss_landscape.surface(model, m, *path.components, x, y, (grid_x, grid_y))
    metrics = {
        "loss_centre": mean_loss(model, x, y),
        "explained_1": path.explained[0],
        "explained_2": path.explained[1],
        "images_used": len(y),
    }
    arrays = {
        "coords": path.coords,
        "residual": path.residual,
        "grid_x": grid_x,
        "grid_y": grid_y,
        "loss": loss,
    }
    return metrics, [], {"arrays.safetensors": save(arrays)}


def _attack(spec: AttackSpec, device: torch.device, progress: Progress | None) -> Made:
    of = spec.transfer
    model = network(store.read(of), device)
    unseen = network(store.read(spec.surrogate), device)
    test = _images(of.data, "test", device)
    hits = correct(
        model,
        test.lazy_batches(),
        test.y,
        of.evaluation,
        generator(of.seed, "transfer attack", device=device),
        source=unseen,
    )
    own = store.read(of).metrics
    metrics = {
        "transfer_accuracy": hits.double().mean().item(),
        "SA": own["SA"],
        "RA": own["RA"],
        "surrogate_RA": store.read(spec.surrogate).metrics["RA"],
    }
    return (
        metrics,
        [],
        {"arrays.safetensors": save(_examples(model, unseen, test, of.evaluation, of.seed))},
    )


def _examples(
    model: nn.Module, unseen: nn.Module, test: Images, attack: PGD, seed: int
) -> dict[str, Tensor]:
    """Some first test images to look at: image (n,3,H,W) and label (n,); what the ticket says of
    them, and of its own PGD's and the unseen model's (n,); and both perturbations (n,3,H,W) in
    steps of eps/127."""
    few = test.take(torch.arange(min(len(test), 16 if test.row.size <= 64 else 4)))
    x, y = few.floats(), few.y
    found = {"image": (255 * x).round().to(torch.uint8), "label": y, "clean": x}
    for name, source in (("own", model), ("unseen", unseen)):
        found[name] = attacked(source, x, y, attack, generator(seed, "examples", device=x.device))
        found[f"{name}_delta"] = (
            ((found[name] - x) * (127 / (attack.eps or 1))).round().to(torch.int8)
        )
    model.eval()
    with torch.no_grad():
        found |= {name: model(found[name]).argmax(1) for name in ("clean", "own", "unseen")}
    return _cpu(found)


_KINDS = {
    PretrainingSpec: _pretraining,
    ImportedSpec: _imported,
    MaskSpec: _mask,
    TransferSpec: _transfer,
    SurfaceSpec: _surface,
    TrajectorySpec: _trajectory,
    AttackSpec: _attack,
}


# ----------------------------------------------------------------------------------------------
# parts


def network(record: store.Record, device: torch.device | str = "cpu") -> nn.Module:
    """The trained network that a record holds, in eval mode, with its normalisation inside.

    Args:
        record: of a pre-training (theta_p or an unseen robust model), or of a transfer that kept
            its weights.
        device: where the network goes.
    Raises:
        ValueError: the record holds no weights, or its file changed since it was written.
    """
    spec = record.spec
    arch = spec["theta"]["arch"] if record.kind == "transfer" else spec["arch"]
    weights = load_file(record.file("weights.safetensors"))
    row = spec["data"]
    with _seeded(0, "initialisation"):  # drawn here, and overwritten at once
        model = build(arch, row["classes"], row["mean"], row["std"])
    model.load_state_dict(weights)
    return model.to(device).eval()


def ticket(spec: TransferSpec, device: torch.device | str = "cpu") -> nn.Module:
    """f(x; m * theta_p) before its transfer.

    Theta_p's weights, a fresh head, the downstream normalisation.
    """
    theta = network(store.read(spec.theta), device).train()
    with _seeded(spec.seed, "head"):
        theta.cpu()
        new_head(theta, spec.data.classes)
    theta.set_normalisation(spec.data.mean, spec.data.std)
    return theta.to(device)


def _ticket_mask(spec: TransferSpec, model: nn.Module) -> dict[str, Tensor]:
    m = (
        dense_mask(prunable(model))
        if spec.mask is None
        else _read_mask(spec.mask, _weights(spec.theta, "cpu"))
    )
    device = next(model.parameters()).device
    return {name: part.to(device) for name, part in m.items()}


def _fresh(spec: PretrainingSpec, device: torch.device | str) -> nn.Module:
    """The network at its initialisation, drawn on the CPU."""
    with _seeded(spec.seed, "initialisation"):
        return build(spec.arch, spec.data.classes, spec.data.mean, spec.data.std).to(device)


@contextmanager
def _seeded(seed: int, purpose: str) -> Iterator[None]:
    """torch's global generator seeded for one purpose, and put back afterwards."""
    was = torch.get_rng_state()
    try:
        torch.set_rng_state(generator(seed, purpose).get_state())
        yield
    finally:
        torch.set_rng_state(was)


def _weights(
    spec: PretrainingSpec | ImportedSpec | TransferSpec, device: torch.device | str
) -> dict[str, Tensor]:
    return load_file(store.read(spec).file("weights.safetensors"), device=str(device))


def _read_mask(spec: MaskSpec, theta: dict[str, Tensor]) -> dict[str, Tensor]:
    """m, which must have been drawn from this very theta_p."""
    record = store.read(spec)
    data = record.read("mask.safetensors")
    of, given = packed_header(data)["theta"], fingerprint(theta)
    if of != given:
        raise ValueError(
            f"{record.path}: drawn from theta_p {of[:12]}, but the one there is {given[:12]};"
            " delete it and run the study again"
        )
    return unpack(data)


def _images(row: DataSet, split: str, device: torch.device | str) -> Images | StreamedImages:
    """The images that the row says it has, or ValueError, one line."""
    found = load_images(row, split, device)
    _demand(row, split)
    return found


def _demand(row: DataSet, split: str) -> None:
    if problem := fingerprints.mismatch(row, split):
        raise ValueError(problem)


def _checkpoint(spec: Spec) -> Path:
    """Where this process leaves what it has of a training, and finds what others left."""
    return unfinished.folder(store.unfinished_root(), record_id(spec)) / CHECKPOINT


def _budget(
    row, fraction: float, rule: str, seed: int, recipe: TrainingConfig, device: torch.device
) -> tuple[Images, Images | None]:
    """Training images, and validation images as the recipe says: out of the same budget
    (section 3), None where too few."""
    everything = _images(row, "train", device)
    every = torch.arange(len(everything))
    if recipe.validation == "held_5000":
        if len(everything) <= 5000:
            raise ValueError(
                f"validation=held_5000: {row.name} has {len(everything)} training images; want more"
                " than 5,000, or validation: tenth"
            )
        pool = everything.take(every[:-5000])
        return pool.take(subset(pool.y, fraction, seed, rule)), everything.take(every[-5000:])
    chosen = everything.take(subset(everything.y, fraction, seed, rule))
    if recipe.validation == "test":
        return chosen, _images(row, "test", device)
    held = subset(chosen.y, 0.1, seed + 1)
    if recipe.validation == "none" or len(held) < ENOUGH:
        return chosen, None
    training = torch.ones(len(chosen), dtype=torch.bool)
    training[held] = False
    return chosen.take(training.nonzero().squeeze(1)), chosen.take(held)


def _deadline() -> float | None:
    value = os.environ.get("DWLT_DEADLINE")
    return float(value) if value else None


def _fit(
    model: nn.Module,
    m: dict[str, Tensor],
    train: Images,
    validation: Images | None,
    spec: PretrainingSpec | TransferSpec,
    progress: Progress | None,
    keep: Callable[[int, State], None] | None = None,
) -> Fitted:
    return fit(
        model,
        m,
        train,
        validation,
        spec.recipe,
        spec.seed,
        eval_attack=spec.evaluation if spec.recipe.attack else None,  # ST is selected by SA
        keep=keep,
        checkpoint=_checkpoint(spec),
        deadline=_deadline(),
        progress=progress,
    )


def _tested(model: nn.Module, found: Fitted, spec, device: torch.device) -> dict[str, float]:
    """SA and RA on the test images of one checkpoint, the selected one.

    The last epoch's beside them.
    """
    test = _images(spec.data, "test", device)
    x, y, attack = test.lazy_batches(), test.y, spec.evaluation
    metrics: dict[str, float] = {}
    for suffix, state in (("_last", found.last), ("", found.selected)):
        if suffix == "" and found.epoch == len(found.history):
            metrics |= {"SA": metrics["SA_last"], "RA": metrics["RA_last"]}
            break
        model.load_state_dict(state)
        metrics[f"SA{suffix}"] = standard_accuracy(model, x, y)
        metrics[f"RA{suffix}"] = robust_accuracy(
            model, x, y, attack, generator(spec.seed, "test", device=device)
        )
    if spec.ra == "any":
        rng = generator(spec.seed, "test", device=device)
        metrics["RA_any"] = robust_accuracy_any(model, x, y, attack, rng)
    commonest = test.y.bincount().max().item() / len(test)  # SA of saying the same of every image
    return {
        **metrics,
        "chance": commonest,
        "test_images": len(test),
        "epoch": found.epoch,
        "epochs_run": len(found.history),
    }


def _mask_and_images(
    spec: SurfaceSpec | TrajectorySpec, model: nn.Module, device: torch.device
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """A transferred ticket's mask, and the test images (x, y) that its loss is taken on."""
    of = spec.transfer
    test = _images(of.data, "test", device)
    test = test.take(torch.arange(min(spec.count, len(test))))
    x, y = test.floats(), test.y
    if spec.images == "attacked":
        rng = generator(of.seed, "landscape", device=device)
        x = attacked(model, x, y, of.evaluation, rng)
    return _ticket_mask(of, model), x, y


def _cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


@cache
def _circumstances(device: torch.device) -> dict[str, object]:
    """What a result should not depend on, but a reader wants to know.

    Where and with which code it was made.
    """
    try:
        found = subprocess.run(
            ["git", "-C", store.checkout(), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    except FileNotFoundError:  # no git, as in a slim container
        found = ""
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    return {
        "code": f"{__version__} {found}".strip(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "host": platform.node(),
    }
