"""How a record of each kind is made: one function per kind, from its spec to metrics and files.

Every random draw comes from a stream of its own, named by purpose, so that none shifts another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from dwlt_lib.analysis import loss_landscape, masked_gradients
from dwlt_lib.attacks import auto
from dwlt_lib.config import specs
from dwlt_lib.config.recipes import PGD
from dwlt_lib.config.specs import record_id
from dwlt_lib.data.batches import Images
from dwlt_lib.data.subsets import subset
from dwlt_lib.evaluation import accuracy
from dwlt_lib.evaluation.accuracy import attacked, correct, mean_loss
from dwlt_lib.evaluation.loss_directions import gradient_above_random
from dwlt_lib.execution import networks, trajectory_files
from dwlt_lib.execution.inputs import Budget, split_budget, verified_images
from dwlt_lib.models import imported
from dwlt_lib.models.architectures import prunable
from dwlt_lib.models.checkpoints import load_checkpoint
from dwlt_lib.models.tensors import fingerprint
from dwlt_lib.pruning import imp, scores
from dwlt_lib.pruning.masks import (
    Mask,
    channel_prune,
    dense_mask,
    magnitude_prune,
    num_kept,
    sparsity,
    two_of_four_prune,
)
from dwlt_lib.pruning.packed_masks import pack
from dwlt_lib.records import outcome_files, store
from dwlt_lib.training import unfinished
from dwlt_lib.training.trainer import Fitted, OutOfTime, fit, generator

Progress = Callable[[dict[str, float]], None] | None
"""Called after every epoch of training with its row of history, if it is there."""


class Result(NamedTuple):
    """What making a record gives."""

    metrics: dict[str, float]
    """Numbers by name; accuracies are fractions in [0, 1]."""
    history: list[dict[str, float]]
    """One row per epoch of training; empty where nothing was trained."""
    files: Mapping[str, bytes | Path]
    """The content of each file by its name, or a file to move there."""


# ------------------------------------------------------------------------------- one per kind


def make_pretraining(
    spec: specs.PretrainingSpec, device: torch.device, progress: Progress
) -> Result:
    """theta_p: a network trained from scratch on the source, by ST, FAT or AT (section 3).

    Args:
        spec: the description.
        device: where to train.
        progress: called with each epoch's row of the history.

    Returns:
        SA and RA on the source's test images, and the weights of the epoch that counts.
    """
    model = networks.initial_network(spec, device)
    train, validation = split_budget(Budget(spec.data), spec.recipe, device)
    trained = fit(
        model,
        dense_mask(prunable(model)),
        train,
        validation,
        spec.recipe,
        spec.seed,
        eval_attack=_validation_attack(spec),
        **_resumable(spec, progress),
    )
    metrics, _ = _test(model, trained, spec, device)
    weights = save(networks.cpu_state(trained.selected))
    return Result(metrics, trained.history, {"weights.safetensors": weights})


def make_imported(spec: specs.ImportedSpec, device: torch.device, progress: Progress) -> Result:
    """theta_p from a file of weights; nothing is measured, since its images need not be here.

    Args:
        spec: the description.
        device: is not used.
        progress: is not used.

    Returns:
        The weights, bit for bit.

    Raises:
        ValueError: one line: the file is missing, or holds another theta_p than planned.
    """
    if problem := imported.missing_file_error(spec):
        raise ValueError(problem)
    path = imported.weights_path(spec.file)
    about = imported.read_description(path)
    if problem := imported.mismatch(about, spec.pretraining, spec.arch, spec.data, spec.theta):
        raise ValueError(f"{path} {problem}")
    checkpoint = load_checkpoint(path, spec.arch)
    metadata = {**checkpoint.about, "theta": fingerprint(checkpoint.weights)}
    problem = imported.mismatch(metadata, spec.pretraining, spec.arch, spec.data, spec.theta)
    if problem:
        raise ValueError(f"{path} {problem}")
    return Result({}, [], {"weights.safetensors": save(checkpoint.weights)})


def make_mask(spec: specs.MaskSpec, device: torch.device, progress: Progress) -> Result:
    """m: `rounds` rounds of RP or OMP, or one more round of IMP on the mask before (section 3).

    IMP-ST-LR goes on from the weights that the round before was left with, others from theta_p.
    SNIP, GraSP and SynFlow score theta_p's weights and prune them at once, as many. IMP-ST-shuffled
    shuffles the mask of IMP-ST of as many rounds.

    Args:
        spec: the description.
        device: where to retrain.
        progress: called with each epoch's row of the history, if there is training.

    Returns:
        Sparsity and number of kept weights, after retraining SA on the source; the packed mask;
        of IMP-ST-LR the retrained weights, too.
    """
    model = networks.load_network(store.read(spec.theta), device)
    theta = networks.load_weights(spec.theta, device)
    weights, history, metrics = imp.prunable_weights(model, theta), [], {}
    prune, fraction = magnitude_prune, spec.prune_fraction
    if spec.method in specs.CHANNELS:
        prune = channel_prune
    elif spec.method in specs.TWO_OF_FOUR:
        prune = two_of_four_prune
        if spec.rounds == specs.level_of_half(fraction):
            fraction = 1.0  # all but the two
    if spec.images:
        train = verified_images(spec.theta.data, "train", device)
        train = train.take(subset(train.y, spec.images / len(train), spec.seed))
        score = scores.snip if spec.method == "SNIP" else scores.grasp
        found = score(model, train.lazy_batches(), train.y)
        m = scores.one_shot_pruning(found, spec.rounds, fraction)
    elif spec.method == specs.SYNFLOW:
        m = scores.synflow(model, spec.theta.data.size, spec.rounds, fraction)
    elif spec.method == "RP":
        m = imp.random_pruning(weights, spec.rounds, spec.prune_fraction, spec.seed)
    elif spec.method == specs.SHUFFLED:
        m = imp.shuffled(networks.load_mask(specs.unshuffled(spec), theta), spec.seed)
    elif spec.retrain is None or not specs.retrains(spec):
        # OMP, and IMP's first round, which prunes theta_p before any training
        m = imp.one_shot_magnitude_pruning(weights, spec.rounds, fraction, prune)
    else:
        config = spec.retrain
        train, _ = split_budget(Budget(spec.theta.data), config, device)

        def retrain(model: nn.Module, m: Mask) -> None:
            resumable = _resumable(spec, progress)
            history.extend(fit(model, m, train, None, config, spec.seed, **resumable).history)

        last = spec.model_copy(update={"rounds": spec.rounds - 1})
        before, start = networks.load_mask(last, theta), theta
        if spec.method == specs.LR_REWINDING and last.rounds > 1:
            start = networks.load_weights(last, device)
        m = imp.iterative_magnitude_pruning(
            model,
            start,
            {name: layer.to(device) for name, layer in before.items()},
            retrain,
            rounds=1,
            fraction=fraction,
            prune=prune,
        )
        test = verified_images(spec.theta.data, "test", device)
        metrics["SA_source"] = accuracy.standard_accuracy(model, test.lazy_batches(), test.y)
    metrics |= {"sparsity": sparsity(m), "kept": num_kept(m)}
    files: dict[str, bytes | Path] = {"mask.safetensors": pack(m, fingerprint(theta))}
    if spec.method == specs.LR_REWINDING and history:  # the next round goes on from there
        files["weights.safetensors"] = save(networks.cpu_state(model.state_dict()))
    return Result(metrics, history, files)


def make_transfer(spec: specs.TransferSpec, device: torch.device, progress: Progress) -> Result:
    """A ticket (theta_p, m) trained downstream under its mask, by ST, FAT or AT (section 3).

    Args:
        spec: the description.
        device: where to train.
        progress: called with each epoch's row of the history.

    Returns:
        SA and RA on the downstream test images, their outcomes per image, and the weights that are
        to be kept.
    """
    model = networks.initial_ticket(spec, device)
    m = networks.ticket_mask(spec, model)
    budget = Budget(spec.data, spec.fraction, spec.subset_rule, spec.subset_seed)
    train, validation = split_budget(budget, spec.recipe, device)
    states = _checkpoint(spec).parent
    keep = partial(trajectory_files.save_state, states) if spec.keep == "trajectory" else None
    trained = fit(
        model,
        m,
        train,
        validation,
        spec.recipe,
        spec.seed,
        eval_attack=_validation_attack(spec),
        keep=keep,
        **_resumable(spec, progress),
    )
    tested, outcomes = _test(model, trained, spec, device)
    metrics = {
        "sparsity": sparsity(m),
        **tested,
        "train_images": len(train),
        "validation_images": len(validation) if validation else 0,
    }
    files: dict[str, bytes | Path] = {outcome_files.FILE: outcome_files.pack(outcomes)}
    if spec.keep != "none":
        files["weights.safetensors"] = save(networks.cpu_state(trained.selected))
    if spec.keep == "trajectory":
        joined = trajectory_files.join_states(states, len(trained.history))
        files["trajectory.safetensors"] = joined
    return Result(metrics, trained.history, files)


def make_surface(spec: specs.SurfaceSpec, device: torch.device, progress: Progress) -> Result:
    """The loss of a transferred ticket over a plane of two filter-normalised directions.

    Args:
        spec: the description.
        device: where to compute.
        progress: is not used.

    Returns:
        The loss at the ticket itself; grid (G,) and loss (G,G) in nats.
    """
    model = networks.load_network(store.read(spec.transfer), device)
    m, x, y = _mask_and_images(spec, model, device)
    d1 = loss_landscape.direction(model, m, generator(spec.seed, "d1"))
    d2 = loss_landscape.direction(model, m, generator(spec.seed, "d2"))
    half = spec.points // 2
    steps = torch.arange(-half, half + 1, dtype=torch.float64)
    grid = steps * (spec.span / half)  # exactly 0 at its centre, which linspace misses
    loss = loss_landscape.surface(model, m, d1, d2, x, y, grid)
    metrics = {"loss_centre": mean_loss(model, x, y), "images_used": len(y)}
    return Result(metrics, [], {"arrays.safetensors": save({"grid": grid, "loss": loss})})


def make_trajectory(spec: specs.TrajectorySpec, device: torch.device, progress: Progress) -> Result:
    """A transfer's path in the plane of its own two PCA directions, and the loss over it.

    Args:
        spec: the description.
        device: where to compute.
        progress: is not used.

    Returns:
        The loss at the path's end and the shares of variance that the two directions hold; the
        path's coordinates (T,2), its distance from the plane, the grid and the loss over it in
        nats.
    """
    record = store.read(spec.transfer)
    states = trajectory_files.load_states(record.file("trajectory.safetensors"))
    model = networks.load_network(record, device)
    model.load_state_dict(states[-1])
    m, x, y = _mask_and_images(spec, model, device)
    names = [name for name, _ in model.named_parameters()]
    path = loss_landscape.trajectory([{name: state[name] for name in names} for state in states])
    grid_x, grid_y = loss_landscape.grid_around(path.coords, spec.points)
    d1, d2 = path.components
    loss = loss_landscape.surface(model, m, d1, d2, x, y, (grid_x, grid_y))
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
    return Result(metrics, [], {"arrays.safetensors": save(arrays)})


def make_attack(spec: specs.AttackSpec, device: torch.device, progress: Progress) -> Result:
    """Accuracy of a transferred ticket on test images attacked through an unseen robust model.

    Args:
        spec: the description.
        device: where to compute.
        progress: is not used.

    Returns:
        The accuracy beside SA and RA, the outcomes per image, and a few example images.
    """
    transfer = store.read(spec.transfer)
    surrogate = store.read(spec.surrogate)
    model, unseen = (
        networks.load_network(transfer, device),
        networks.load_network(surrogate, device),
    )
    test = verified_images(spec.transfer.data, "test", device)
    attack, seed = spec.transfer.evaluation, spec.transfer.seed
    rng = generator(seed, "transfer attack", device=device)
    right = correct(model, test.lazy_batches(), test.y, attack, rng, source=unseen).cpu().numpy()
    metrics = {
        "transfer_accuracy": float(right.mean()),
        "SA": transfer.metrics["SA"],
        "RA": transfer.metrics["RA"],
        "surrogate_RA": surrogate.metrics["RA"],
    }
    files = {
        "arrays.safetensors": save(_examples(model, unseen, test, attack, seed)),
        outcome_files.FILE: outcome_files.pack({"transfer": right}),
    }
    return Result(metrics, [], files)


def make_robustness(spec: specs.RobustnessSpec, device: torch.device, progress: Progress) -> Result:
    """Accuracy of a transferred ticket under strong attacks, and over their radius and steps.

    What one attack found is kept on the disk before the next begins.

    Args:
        spec: the description.
        device: where to compute.
        progress: is not used.

    Returns:
        The accuracy under each attack and in the worst case beside SA and RA, their outcomes per
        image, the numbers of `masked_gradients.signs`, the two curves, and what AutoAttack warned
        of.

    Raises:
        OutOfTime: the deadline would pass within the next attack.
    """
    transfer = store.read(spec.transfer)
    model, evaluation = networks.load_network(transfer, device), spec.transfer.evaluation
    test = _first_test_images(spec, device)
    x, y = test.lazy_batches(), test.y
    attacks = spec.by_name(evaluation)
    runs = {
        **attacks,
        **{f"eps {i}": attack for i, attack in enumerate(spec.eps_curve(evaluation))},
        **{f"steps {attack.steps}": attack for attack in spec.steps_curve(evaluation)},
        **spec.probes(evaluation),
    }
    checkpoint, deadline, longest = _checkpoint(spec), _deadline(), 0.0
    state = unfinished.load(checkpoint, device) or {}
    found: dict[str, Tensor] = state.get("found", {})
    said: list[str] = state.get("said", [])
    for name, attack in runs.items():
        if name in found:
            continue
        if deadline is not None and time.time() + longest > deadline:
            raise OutOfTime
        began = time.time()
        rng = generator(spec.transfer.seed, f"robustness {name}", device=device)
        with auto.collected_warnings() as warned:
            found[name] = correct(model, x, y, attack, rng)
        said += warned
        unfinished.save({"found": found, "said": said}, checkpoint)
        longest = max(longest, time.time() - began)
    bits = {name: right.cpu().numpy() for name, right in found.items()}
    own = outcome_files.unpack(transfer, transfer)
    known = {name: own[name][: len(test)] for name in ("SA", "RA")}
    outcomes = {name: bits[name] for name in attacks}
    outcomes["worst"] = np.logical_and.reduce([*known.values(), *outcomes.values()])
    metrics = {name: float(right.mean()) for name, right in {**known, **outcomes}.items()}
    metrics |= {"chance": y.bincount().max().item() / len(y), "images_used": len(y)}
    rng = generator(spec.transfer.seed, "robustness directions", device=device)
    above = gradient_above_random(model, x, y, evaluation.eps, rng)
    many = bits[f"steps {max(spec.curve_steps)}"]
    metrics |= {
        "gradient_above_random": above.double().mean().item(),
        **masked_gradients.numbers({**known, **outcomes}, bits["FGSM"], many, bits["grey"]),
    }
    curves = {
        "eps_factors": np.array(spec.eps_factors),
        "eps_RA": np.array([bits[f"eps {i}"].mean() for i in range(len(spec.eps_factors))]),
        "steps": np.array(spec.curve_steps),
        "steps_RA": np.array([bits[f"steps {steps}"].mean() for steps in spec.curve_steps]),
    }
    files = {
        "arrays.safetensors": save({name: torch.from_numpy(a) for name, a in curves.items()}),
        outcome_files.FILE: outcome_files.pack(outcomes),
    }
    if said:
        files[masked_gradients.WARNINGS] = "\n".join(said).encode()
    return Result(metrics, [], files)


MAKERS: dict[type, Callable[..., Result]] = {
    specs.PretrainingSpec: make_pretraining,
    specs.ImportedSpec: make_imported,
    specs.MaskSpec: make_mask,
    specs.TransferSpec: make_transfer,
    specs.SurfaceSpec: make_surface,
    specs.TrajectorySpec: make_trajectory,
    specs.AttackSpec: make_attack,
    specs.RobustnessSpec: make_robustness,
}
"""The function (spec, device, progress) -> Result that makes a record, by the class of its spec."""


# -------------------------------------------------------------------------------- training


def _validation_attack(spec: specs.PretrainingSpec | specs.TransferSpec) -> PGD | None:
    """The attack that measures validation RA; None after ST, which is selected by SA."""
    return spec.evaluation if spec.recipe.attack else None


def _resumable(spec: specs.Spec, progress: Progress) -> dict[str, Any]:
    """What every training is given to go on from where it stopped, and to stop in time."""
    return {"checkpoint": _checkpoint(spec), "deadline": _deadline(), "progress": progress}


def _checkpoint(spec: specs.Spec) -> Path:
    """Where this process keeps its unfinished training, and finds what others left of it."""
    return unfinished.folder(store.unfinished_root(), record_id(spec)) / unfinished.CHECKPOINT


def _deadline() -> float | None:
    """When training must stop, in seconds since 1970; None: never."""
    value = os.environ.get("DWLT_DEADLINE")
    return float(value) if value else None


# ------------------------------------------------------------------------------ evaluation


def _test(
    model: nn.Module,
    trained: Fitted,
    spec: specs.PretrainingSpec | specs.TransferSpec,
    device: torch.device,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """SA and RA on the test images: of the selected epoch, and of the last one (`_last`).

    Returns:
        The metrics, and which test images were right, (N,) bool by the name of the accuracy that
        is their mean.
    """
    test = verified_images(spec.data, "test", device)
    x, y, attack = test.lazy_batches(), test.y, spec.evaluation

    def rng() -> torch.Generator:
        return generator(spec.seed, "test", device=device)

    def standard_and_robust() -> tuple[Tensor, Tensor]:
        return correct(model, x, y), correct(model, x, y, attack, rng())

    model.load_state_dict(trained.last)
    last = selected = standard_and_robust()
    if trained.epoch != len(trained.history):
        model.load_state_dict(trained.selected)
        selected = standard_and_robust()
    right = {"SA_last": last[0], "RA_last": last[1], "SA": selected[0], "RA": selected[1]}
    if spec.ra == "any":
        right["RA_any"] = accuracy.correct_throughout(model, x, y, attack, rng())
    outcomes = {name: bits.cpu().numpy() for name, bits in right.items()}
    metrics = {
        **{name: float(bits.mean()) for name, bits in outcomes.items()},
        "chance": test.y.bincount().max().item() / len(test),  # SA of always the commonest class
        "test_images": len(test),
        "epoch": trained.epoch,
        "epochs_run": len(trained.history),
    }
    return metrics, outcomes


def _first_test_images(
    spec: specs.SurfaceSpec | specs.TrajectorySpec | specs.RobustnessSpec, device: torch.device
) -> Images:
    """As many of the ticket's test images as the spec counts, from the first on."""
    test = verified_images(spec.transfer.data, "test", device)
    return test.take(torch.arange(min(spec.count, len(test))))


def _mask_and_images(
    spec: specs.SurfaceSpec | specs.TrajectorySpec, model: nn.Module, device: torch.device
) -> tuple[Mask, Tensor, Tensor]:
    """A transferred ticket's mask, and the test images (x, y) over which its loss is the mean."""
    transfer, test = spec.transfer, _first_test_images(spec, device)
    x, y = test.floats(), test.y
    if spec.images == "attacked":
        rng = generator(transfer.seed, "landscape", device=device)
        x = attacked(model, x, y, transfer.evaluation, rng)
    return networks.ticket_mask(transfer, model), x, y


def _examples(
    model: nn.Module, unseen: nn.Module, test: Images, attack: PGD, seed: int
) -> dict[str, Tensor]:
    """The first test images, how each source moves them, and what the ticket predicts.

    Returns:
        image (n,3,H,W) uint8 and label (n,); the ticket's predictions (n,) for clean images and
        for those attacked through itself (own) and through the unseen model (unseen); own_delta
        and unseen_delta (n,3,H,W) int8, the perturbations in steps of eps/127.
    """
    few = test.take(torch.arange(min(len(test), 16 if test.row.size <= 64 else 4)))
    x, y = few.floats(), few.y
    inputs, deltas = {"clean": x}, {}
    for name, source in (("own", model), ("unseen", unseen)):
        inputs[name] = attacked(source, x, y, attack, generator(seed, "examples", device=x.device))
        delta = (inputs[name] - x) * (127 / (attack.eps or 1))
        deltas[f"{name}_delta"] = delta.round().to(torch.int8)
    model.eval()
    with torch.no_grad():
        predictions = {name: model(moved).argmax(1) for name, moved in inputs.items()}
    image = (255 * x).round().to(torch.uint8)
    return networks.cpu_state({"image": image, "label": y, **predictions, **deltas})
