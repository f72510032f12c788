"""A small study of the masks that the paper does not have, made through records."""

from itertools import pairwise

import pytest
import torch
from made_records import Caught, same, weights

from dwlt_lib.config import specs
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import LR_REWINDING, OTHER_METHODS, TWO_OF_FOUR, record_id
from dwlt_lib.execution import kinds, make
from dwlt_lib.models.architectures import prunable, skeleton
from dwlt_lib.pruning import masks, read_mask
from dwlt_lib.records import store


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """The plan of a study of three rounds of every method, whose records are there."""
    block = {"pretraining": ["STD"], "dataset": ["stripes"], "rounds": [3], "seeds": [0]}
    grid = [{**block, "method": ["IMP-ST", *OTHER_METHODS], "regime": ["ST"]}]
    study = toy(grid=grid, landscapes=[], transfer_attacks=[])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DWLT_OUTPUTS", str(tmp_path_factory.mktemp("other_methods")))
        store.write_study(study)
        for spec in plan(study).values():
            make.make(spec)
        yield plan(study)


def ladder(made, method):
    """The masks of a method by rounds."""
    found = [s for s in made.values() if s.kind == "mask" and s.method == method]
    return {spec.rounds: read_mask(record_id(spec)) for spec in found}


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_a_transfer_has_its_methods_mask_and_sparsity(made, method):
    (spec,) = (s for s in made.values() if s.kind == "transfer" and specs.method_of(s) == method)
    row, m = specs.columns(spec), ladder(made, method)[3]
    assert row["sparsity"] == (0.5 if method in TWO_OF_FOUR else specs.ladder(3))
    # to within the stem, which twos of four leave, and half a channel of the widest layer
    assert masks.sparsity(m) == pytest.approx(row["sparsity"], abs=0.006)
    assert store.read(spec).metrics["sparsity"] == masks.sparsity(m)


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_masks_nest(made, method):
    found = ladder(made, method)
    for before, after in pairwise(found[k] for k in (1, 2, 3)):
        assert all((after[name] <= before[name]).all() for name in after)


@pytest.mark.parametrize("method", ["IMP-ST", LR_REWINDING])
def test_rounds_rewind_to_theta_but_those_of_lr_rewinding_go_on(made, method, monkeypatch):
    starts = []

    def spy(model, m, *_, **__):
        starts.append({name: value.clone() for name, value in model.state_dict().items()})
        raise Caught

    monkeypatch.setattr(kinds, "fit", spy)
    masks_of = {s.rounds: s for s in made.values() if s.kind == "mask" and s.method == method}
    for rounds in (2, 3):
        with pytest.raises(Caught):
            kinds.make_mask(masks_of[rounds], torch.device("cpu"), None)
    assert same(starts[0], weights(masks_of[2].theta))
    before = masks_of[2] if method == LR_REWINDING else masks_of[2].theta
    assert same(starts[1], weights(before))
    held = {rounds: set(store.read(spec).files) for rounds, spec in masks_of.items()}
    retrained = {"weights.safetensors"} if method == LR_REWINDING else set()
    assert held == {k: {"mask.safetensors"} | (retrained if k > 1 else set()) for k in (1, 2, 3)}
    if method == LR_REWINDING:
        first = ladder(made, method)[1]
        assert all((starts[1][name][~layer] == 0).all() for name, layer in first.items())


def test_structure_is_there_after_retraining_too(made):
    one_shot, iterative = (ladder(made, method)[3] for method in ("OMP-2of4", "IMP-ST-2of4"))
    assert any((one_shot[name] != iterative[name]).any() for name in one_shot)
    fours = [layer for layer in iterative.values() if layer.shape[1] % 4 == 0]
    assert len(fours) == len(prunable(skeleton("resnet8", 3))) - 1
    for layer in fours:
        assert (layer.transpose(1, -1).reshape(-1, 4).sum(1) == 2).all()
    for layer in ladder(made, "IMP-ST-channel")[3].values():
        assert set(layer.flatten(1).float().mean(1).tolist()) <= {0.0, 1.0}
