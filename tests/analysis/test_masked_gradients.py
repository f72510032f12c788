"""Signs of masked gradients: what fires them, on counts and on networks."""

import numpy as np
import pandas as pd
import pytest
import torch
from seeds import of, set_global
from seeds import torch_rng as rng
from torch import nn

from dwlt_lib.analysis import masked_gradients
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.recipes import PGD, StrongAttacks, TrainingConfig
from dwlt_lib.data import batches
from dwlt_lib.evaluation import accuracy
from dwlt_lib.evaluation.loss_directions import gradient_above_random
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks
from dwlt_lib.training import trainer

SOUND = dict(
    images_used=1000,
    chance=0.1,
    SA=0.9,
    square_only=0,
    gradients_only=30,
    fgsm_only=2,
    many_steps_only=40,
    RA_fgsm=0.6,
    RA_grey=0.0,
    gradient_above_random=0.99,
)


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        (dict(square_only=60), "useless gradients (Square breaks 60 images"),
        (dict(fgsm_only=80), "useless gradients (one step breaks 80 images"),
        (dict(many_steps_only=590), "catastrophic overfitting (one step leaves 60.0 %"),
        (dict(RA_grey=0.2), "an attack that fails (RA is 20.0 % at radius 0.5"),
        (dict(gradient_above_random=0.5), "gradients that point nowhere"),
    ],
)
def test_each_sign_has_its_own_cause(change, sign):
    assert masked_gradients.signs(SOUND) == []
    (found,) = masked_gradients.signs({**SOUND, **change})
    assert found.startswith(f"sign of {sign}")


def test_what_chance_may_do_is_no_sign():
    within = dict(square_only=40, fgsm_only=50, RA_grey=0.11, many_steps_only=310)
    assert masked_gradients.signs({**SOUND, **within}, transfer=(20, 12)) == []
    (found,) = masked_gradients.signs(SOUND, transfer=(40, 12))
    assert "a transfer attack breaks 40 images" in found and "against 12" in found
    unknown = dict(square_only=np.nan, gradients_only=np.nan)
    assert masked_gradients.signs({**SOUND, **unknown}) == []


def test_only_images_that_are_right_as_they_are_are_compared():
    def bits(text):
        return np.array([letter == "1" for letter in text])

    right = {
        "SA": bits("0111111"),
        "RA": bits("1110110"),
        "APGD-T": bits("111011"),
        "Square": bits("0100111"),
        "worst": bits("000000"),
    }
    assert masked_gradients.compare(right, right["Square"]) == (1, 0)
    assert masked_gradients.compare(right, bits("0111")) == (0, 1)
    fgsm, many = bits("0101111"), bits("1110010")
    numbers = masked_gradients.numbers(right, fgsm, many, bits("0000001"))
    assert (numbers["fgsm_only"], numbers["many_steps_only"]) == (1, 3)
    assert numbers["RA_fgsm"] == 5 / 7 and numbers["RA_grey"] == 1 / 7


class Around(nn.Module):
    """A network with something before or behind it."""

    def __init__(self, model, before=None, behind=None):
        super().__init__()
        self.model, self.before, self.behind = model, before or Map(), behind or Map()

    def forward(self, x):
        return self.behind(self.model(self.before(x)))


class Map(nn.Module):
    """A function of a tensor as a module."""

    def __init__(self, function=lambda x: x):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def trained(eps, attack, epochs, lr=0.1):
    set_global()
    row = CATALOGUE["digits"]
    model = architectures.build("resnet8", 10, row.mean, row.std)
    config = TrainingConfig(
        epochs=epochs,
        batch=64,
        lr=lr,
        schedule="one_cycle",
        momentum=0.9,
        weight_decay=5e-4,
        attack=attack,
        selection="last",
        validation="none",
    )
    dense = masks.dense_mask(architectures.prunable(model))
    train = batches.load_images("digits", "train")
    model.load_state_dict(trainer.fit(model, dense, train, None, config, of(0)).last)
    return model.eval()


@pytest.fixture(scope="module")
def robust():
    return trained(0.15, PGD(0.15, 0.075, 3), 4)


def signs_of(model, eps=0.15):
    """The signs that the attacks of a record find, in few steps."""
    test = batches.load_images("digits", "test")
    x, y = test.floats()[:300], test.y[:300]
    evaluation = PGD(eps, eps / 8, 20)
    strong = StrongAttacks(pgd_restarts=1, apgd_steps=20, apgd_targets=1, square_queries=300)
    runs = {"RA": evaluation, **strong.by_name(evaluation), **strong.probes(evaluation)}
    right = {name: accuracy.correct(model, x, y, runs[name], rng()).numpy() for name in runs}
    right["SA"] = accuracy.correct(model, x, y).numpy()
    row = {
        "images_used": len(y),
        "chance": y.bincount().max().item() / len(y),
        "SA": right["SA"].mean(),
        "gradient_above_random": gradient_above_random(model, x, y, eps, rng()).double().mean(),
        **masked_gradients.numbers(right, right["FGSM"], right["RA"], right["grey"]),
    }
    return " ".join(masked_gradients.signs({name: float(row[name]) for name in row}))


def test_a_network_trained_against_pgd_shows_no_sign(robust):
    assert signs_of(robust) == ""


def test_saturated_logits_show(robust):
    found = signs_of(Around(robust, behind=Map(lambda z: 1000 * z)).eval())
    assert "an attack that fails" in found and "point nowhere" in found


def test_an_input_stage_without_gradients_shows(robust):
    found = signs_of(Around(robust, before=Map(lambda x: (8 * x).round() / 8)).eval())
    assert "Square breaks" in found and "an attack that fails" in found


def test_an_input_stage_with_next_to_no_gradient_shows():
    steep = Around(trained(0.15, None, 3), before=Map(lambda x: torch.sigmoid(1000 * (x - 0.5))))
    assert "Square breaks" in signs_of(steep.eval())


def test_a_network_that_has_overfitted_to_one_step_shows():
    collapsed = trained(0.3, PGD(0.3, 0.3, 1, random_start=False), 20, lr=0.2)
    assert "catastrophic overfitting" in signs_of(collapsed, 0.3)


def test_each_curve_says_what_was_seen_on_its_networks_and_on_its_dense_one():
    task = {"pretraining": "AT", "dataset": "digits", "fraction": 1.0}
    sign = "sign of a broken gradient (12 of 100 images)"
    networks = pd.DataFrame(
        [
            {**task, "method": "dense", "signs": []},
            {**task, "method": "IMP-ST", "signs": []},
            {**task, "method": "RP", "signs": [sign]},
        ]
    )
    curves = pd.DataFrame([{**task, "method": m} for m in ("IMP-ST", "RP")])
    other = pd.DataFrame([{**task, "pretraining": "STD", "method": "IMP-ST"}])
    said = masked_gradients.by_curve(pd.concat([curves, other]), networks)
    assert said == [
        "no sign (2 networks)",
        "sign of a broken gradient (1 of 2 networks)",
        "not tested",
    ]
