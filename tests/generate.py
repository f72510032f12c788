"""Records with invented numbers, for tests of what reads records.

No training, one kind of file each.
"""

import numpy as np
import torch
from safetensors.numpy import save
from seeds import numpy_rng, torch_rng

from dwlt_lib.config import planning
from dwlt_lib.pruning import packed_masks
from dwlt_lib.records import store

DROP = {"IMP-ST": 0.001, "IMP-AT": 0.0011, "OMP": 0.0016, "RP": 0.004}


def records_of(study, same=(), seed=0):
    """Writes every record that a study plans.

    All transfers have the metrics `same`, if that is given.
    """
    rng, generator = numpy_rng(seed), torch_rng(seed)
    store.write_study(study)
    for spec in planning.plan(study).values():
        files, metrics, history = {}, {"SA": 0.95, "RA": 0.4, "epoch": 2}, []
        if spec.kind == "transfer":
            r, drop = (spec.mask.rounds, DROP[spec.mask.method]) if spec.mask else (0, 0.0)
            share = 1 - (1 - spec.mask.prune_fraction) ** r if r else 0.0
            fall, noise = drop * r**1.6 / 4, rng.normal(0, 0.004, 2)
            metrics = {
                "sparsity": share,
                "SA": 0.95 - fall + noise[0],
                "RA": (0.7 if spec.regime == "AT" else 0.1) - 2 * fall + noise[1],
                "epoch": 2,
            }
            metrics |= dict(same)
            history = [
                {"epoch": e, "lr": 0.1, "loss": 2.0 / e, "SA": 0.3 * e, "RA": 0.2 * e}
                for e in (1, 2)
            ]
        elif spec.kind == "mask":
            shapes = {
                "conv1.weight": (8, 3, 3, 3),
                "layer1.0.conv1.weight": (8, 8, 3, 3),
                "layer2.0.conv1.weight": (16, 8, 3, 3),
                "layer2.0.downsample.0.weight": (16, 8, 1, 1),
            }
            share = 1 - (1 - spec.prune_fraction) ** spec.rounds
            m = {
                name: torch.rand(shape, generator=generator) >= share
                for name, shape in shapes.items()
            }
            files, metrics = (
                {"mask.safetensors": packed_masks.pack(m)},
                {"sparsity": share, "kept": 10},
            )
        elif spec.kind in ("surface", "trajectory"):
            g = np.linspace(-1, 1, 9)
            bowl = {"loss": 0.2 + 3 * g[:, None] ** 2 + 2 * g[None] ** 2 + rng.random()}
            path = np.stack([np.linspace(1, 0, 5), np.linspace(0.5, 0, 5)], 1)
            own = (
                {"grid": g}
                if spec.kind == "surface"
                else {"coords": path, "grid_x": g, "grid_y": g}
            )
            files = {"arrays.safetensors": save(bowl | own)}
            metrics = {"loss_centre": 0.2} | (
                {"explained_1": 0.7, "explained_2": 0.1} if len(own) > 1 else {}
            )
        elif spec.kind == "attack":
            metrics, few = {"transfer_accuracy": 0.8, "SA": 0.95, "RA": 0.7, "surrogate_RA": 0.6}, 4
            delta = rng.integers(-127, 128, (2, few, 3, 8, 8)).astype(np.int8)
            clean, own, unseen = rng.integers(0, 3, (3, few))
            files = {
                "arrays.safetensors": save(
                    {
                        "image": rng.integers(0, 256, (few, 3, 8, 8)).astype(np.uint8),
                        "own_delta": delta[0],
                        "unseen_delta": delta[1],
                        "label": np.arange(few),
                        "clean": clean,
                        "own": own,
                        "unseen": unseen,
                    }
                )
            }
        elif spec.kind == "robustness":
            attacks = spec.by_name(spec.transfer.evaluation)
            metrics = {"SA": 0.95, "RA": 0.7, **dict.fromkeys(attacks, 0.65), "worst": 0.64}
            curves = {
                "eps_factors": np.array(spec.eps_factors),
                "eps_RA": np.linspace(0.95, 0, len(spec.eps_factors)),
                "steps": np.array(spec.curve_steps),
                "steps_RA": np.linspace(0.8, 0.7, len(spec.curve_steps)),
            }
            files = {"arrays.safetensors": save(curves)}
        store.write(
            spec, {k: float(v) for k, v in metrics.items()}, history, files, {"seconds": 1.0}
        )
