"""Tables and records by hand that the tests of figures and the report draw from."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from seeds import torch_rng

from dwlt_lib.plotting.style import PRETRAININGS

ROUNDS = [0, 3, 6, 10, 14]
PARAMS = dict(
    arch="resnet8",
    source="mnist5k",
    grid=[
        dict(
            pretraining=["STD", "AT"],
            method=["IMP-ST"],
            dataset=["digits"],
            fraction=[1, 0.1],
            rounds=[0, 3],
            seeds=[0],
        ),
        dict(
            pretraining=["AT"],
            method=["RP"],
            dataset=["digits", "tiles"],
            fraction=[1.0],
            rounds=[6],
            seeds=[0, 1],
        ),
    ],
)


def transfers(
    seeds=(0, 1), sets=("digits", "tiles"), fractions=(1.0, 0.1), methods=("IMP-ST", "OMP", "RP")
):
    keys = pd.MultiIndex.from_product(
        [PRETRAININGS, methods, sets, fractions, ("ST", "AT"), ROUNDS, seeds],
        names=["pretraining", "method", "dataset", "fraction", "regime", "rounds", "seed"],
    )
    table = keys.to_frame(index=False)
    table.loc[table["rounds"] == 0, "method"] = "dense"
    table = table.drop_duplicates(ignore_index=True)
    return table.assign(
        SA=0.95 - 0.01 * table["rounds"] + 0.002 * table["seed"], RA=0.6 - 0.01 * table["rounds"]
    )


def subsets(table):
    yield table
    yield table[table["seed"] == 0]
    yield table[table["dataset"] == "tiles"]
    yield table[table["method"] != "dense"]
    yield table[table["rounds"] == 0]
    yield table[table["regime"] == "AT"]
    yield table.assign(RA=np.nan)
    yield table.iloc[:0]


def falls(selects=True):
    """A table of `robust_overfitting.overfitting_table`: 2 points dense, 0.1 less each round."""
    table = transfers(seeds=(0, 1, 2))
    table = table[table["regime"] == "AT"].drop(columns=["regime", "SA", "RA"])
    lost = 0.02 - 0.001 * table["rounds"] + 0.002 * (table["seed"] - 1)
    return table.assign(validation=lost, test=lost - 0.02 if selects else np.nan, error=0.04)


def mask_records():
    shapes = {"conv1.weight": (4, 3, 3, 3), "layer1.0.conv1.weight": (4, 4, 3, 3)}
    shapes["layer2.0.downsample.0.weight"] = (8, 4, 1, 1)
    rng, found = torch_rng(), {}
    for p in PRETRAININGS:
        for r in (3, 10):
            found[f"{p}{r}"] = {
                name: torch.rand(shape, generator=rng) < 0.8**r for name, shape in shapes.items()
            }
    rows = [
        dict(id=key, pretraining=key.rstrip("0123456789"), method="IMP-ST", seed=0) for key in found
    ]
    return pd.DataFrame(rows).assign(rounds=[3, 10] * 3), found


def landscape_records(kind):
    """Records of one kind, out of order: a table and what reads its arrays."""
    same = dict(method="IMP-ST", dataset="digits", regime="AT", rounds=6, seed=0)
    same |= dict(explained_1=0.6, explained_2=0.2) if kind == "trajectory" else {}
    rows = [
        dict(id=f"{p}{f}{images}", pretraining=p, fraction=f, images=images, **same)
        for p in ("AT", "FAT", "STD")
        for f in (0.1, 1.0)
        for images in ("attacked", "clean")
    ]
    grid = np.linspace(-1, 1, 9)
    loss = 0.1 + grid[:, None] ** 2 + 2 * grid[None] ** 2
    if kind == "surface":
        arrays = dict(grid=grid, loss=loss)
    else:
        path = np.stack([np.linspace(1, 0, 5), np.linspace(-1, 0, 5)], axis=1)
        arrays = dict(grid_x=grid, grid_y=grid, loss=loss, coords=path, residual=np.zeros(5))
    return pd.DataFrame(rows), lambda id: SimpleNamespace(arrays=lambda: arrays)


def texts(fig):
    return [text.get_text() for text in fig.findobj(lambda artist: hasattr(artist, "get_text"))]


COUNTS = ["square_only", "gradients_only", "fgsm_only", "many_steps_only"]


def robustness_records(pretrainings=("STD", "AT"), methods=("IMP-ST", "RP"), rounds=(6, 14)):
    """Records of strong attacks: a table and what reads their curves."""
    rows = [
        dict(pretraining=p, method=m if r else "dense", rounds=r, seed=s, regime="AT")
        for p in pretrainings
        for m in methods
        for r in (0, *rounds)
        for s in (0, 1)
    ]
    table = pd.DataFrame(rows).drop_duplicates(ignore_index=True)
    ra = 0.7 - 0.01 * table["rounds"] + 0.02 * table["seed"]
    table = table.assign(dataset="digits", fraction=1.0, SA=0.9, RA=ra, chance=0.12)
    lower = {"PGD-50x10": 0.02, "APGD-CE": 0.03, "APGD-T": 0.05, "Square": 0.01, "worst": 0.06}
    table = table.assign(**{name: ra - by for name, by in lower.items()}, images_used=1000)
    table = table.assign(**{name: 0 for name in COUNTS}, RA_fgsm=ra + 0.1, RA_grey=0.0)
    table["gradient_above_random"] = 0.99
    table["id"] = [f"{i:020x}" for i in range(len(table))]
    of = dict(zip(table["id"], table["RA"], strict=True))

    def read(id):
        eps, steps = np.array([0.0, 0.5, 1, 2, 4]), np.array([1, 10, 100])
        curves = dict(eps_factors=eps, eps_RA=of[id] - 0.15 * (eps - 1), steps=steps)
        curves["steps_RA"] = of[id] + np.array([0.1, 0.01, -0.01])
        return SimpleNamespace(
            arrays=lambda: curves, upstream=[f"transfer {id}"], has=lambda name: False
        )

    return table, read
