"""What the tests of making records share."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import columns as columns_of
from dwlt_lib.config.specs import record_id
from dwlt_lib.execution import kinds
from dwlt_lib.records import store


def one(study, kind, **columns):
    found = [
        spec
        for spec in plan(study).values()
        if spec.kind == kind
        and all(columns_of(spec)[name] == value for name, value in columns.items())
    ]
    assert found
    return found[0]


def weights(spec):
    return load_file(store.read(spec).path / "weights.safetensors")


def under_way(spec):
    return list(store.unfinished_root().glob(f"{record_id(spec)}.*"))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Caught(Exception):
    pass


def caught_fit(monkeypatch, spec):
    """What `make` hands to training.fit for this record."""
    found = {}

    def spy(model, m, train, validation, config, seed, *args, **settings):
        found.update(
            state={name: value.clone() for name, value in model.state_dict().items()},
            m=m,
            train=train,
            validation=validation,
            eval_attack=settings["eval_attack"],
            seed=seed,
        )
        raise Caught

    with monkeypatch.context() as patch:
        patch.setattr(kinds, "fit", spy)
        patch.setattr(kinds, "_checkpoint", lambda spec: Path("never/written"))
        with pytest.raises(Caught):
            kinds.MAKERS[type(spec)](spec, torch.device("cpu"), None)
    return found
