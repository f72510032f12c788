"""Records of strong attacks: what they hold, and that a run that is stopped goes on."""

import logging
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from generate import records_of
from made_records import under_way, weights

from dwlt_lib.analysis import double_win, masked_gradients, tables
from dwlt_lib.analysis.noninferiority import noninferiority
from dwlt_lib.attacks import auto
from dwlt_lib.config import planning
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import record_id
from dwlt_lib.evaluation import accuracy
from dwlt_lib.execution import inputs, kinds, make, networks, runner, strong_attacks
from dwlt_lib.execution.strong_attacks import robustness_specs
from dwlt_lib.records import store
from dwlt_lib.training import trainer

TICKETS = {
    "pretraining": ["AT"],
    "method": ["IMP-ST"],
    "dataset": ["stripes"],
    "rounds": [0, 2],
    "seeds": [0],
}
FEW = {
    "count": 20,
    "pgd_steps": 3,
    "pgd_restarts": 2,
    "apgd_steps": 4,
    "apgd_targets": 1,
    "square_queries": 5,
    "eps_factors": [0.0, 1.0, 4.0],
    "curve_steps": [1, 3],
}


@pytest.fixture
def study(toy, toy_records, tmp_path, monkeypatch):
    """The toy study with strong attacks, of which all is made but these."""
    shutil.copytree(toy_records[1], tmp_path / "outputs")
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    return toy(strong_attacks=FEW, robustness=[TICKETS])


def attacked(study):
    return [spec for spec in plan(study).values() if spec.kind == "robustness"]


def test_every_accuracy_is_the_mean_of_its_bits_and_the_worst_case_is_below_each(study):
    for spec in attacked(study):
        record = store.read(make.make(spec))
        ticket = store.outcomes(spec.transfer)
        own = {name: right for name, right in store.outcomes(spec).items() if name != "worst"}
        worst = store.outcomes(spec)["worst"]
        assert (
            own.keys() == {"PGD-3x2", "APGD-CE", "APGD-T", "Square"}
            and len(worst) == record.metrics["images_used"] == 20
        )
        for name, right in own.items():
            assert record.metrics[name] == right.mean() and not (worst & ~right).any()
        for name in ("SA", "RA"):
            assert record.metrics[name] == ticket[name][:20].mean()
        counts = masked_gradients.compare(
            {"SA": ticket["SA"], "RA": ticket["RA"], **own}, own["Square"]
        )
        found = [record.metrics[name] for name in ("square_only", "gradients_only")]
        assert found == list(counts) and 0 <= record.metrics["gradient_above_random"] <= 1
        every = [*own.values(), ticket["SA"][:20], ticket["RA"][:20]]
        assert np.array_equal(worst, np.logical_and.reduce(every))
        assert np.array_equal(worst, ticket["worst"])
    assert store.verify() == []


def test_the_attacks_are_those_of_the_evaluation_and_the_curves_run_through_ra(study):
    spec = attacked(study)[-1]
    arrays = store.read(make.make(spec)).arrays()
    model = networks.initial_ticket(spec.transfer)
    model.load_state_dict(weights(spec.transfer))
    test = kinds.verified_images(spec.transfer.data, "test", torch.device("cpu"))
    x, y, attack = test.floats()[:20], test.y[:20], spec.transfer.evaluation
    strong = spec.by_name(attack)["PGD-3x2"]
    assert (strong.eps, strong.alpha) == (attack.eps, attack.alpha)
    assert (strong.steps, strong.restarts) == (3, 2)
    rng = trainer.generator(0, "robustness PGD-3x2")
    right = accuracy.correct(model, x, y, strong, rng)
    assert np.array_equal(store.outcomes(spec)["PGD-3x2"], right)
    assert arrays["eps_factors"].tolist() == FEW["eps_factors"]
    assert arrays["steps"].tolist() == FEW["curve_steps"]
    assert arrays["eps_RA"][0] == accuracy.standard_accuracy(model, x, y)


def test_what_autoattack_warns_of_is_in_the_record_and_among_the_signs(study, toy, monkeypatch):
    def doubting(model, x, y, attack, rng):
        logging.getLogger("auto-attack").warning("it seems to be dynamic! See flags_doc.md for it.")
        return x

    monkeypatch.setattr(auto, "perturb", doubting)
    strong = toy(strong_attacks=FEW | {"attacks": ["AutoAttack"]}, robustness=[TICKETS])
    record = store.read(make.make(attacked(strong)[0]))
    assert record.metrics["AutoAttack"] == record.metrics["SA"]
    assert record.read(masked_gradients.WARNINGS) == b"it seems to be dynamic!"
    table = store.table("robustness")
    assert tables.attack_names(table) == ["AutoAttack"]
    row = masked_gradients.of_networks(table, table[:0], store.read, store.outcomes).iloc[0]
    assert "sign of an evaluation to doubt (AutoAttack: it seems to be dynamic!)" in row["signs"]


def test_autoattack_without_its_package_is_refused_before_any_work(study, toy, monkeypatch):
    monkeypatch.setattr(auto, "find_spec", lambda name: None)
    assert inputs.check_inputs(attacked(study), "cpu") == "cpu"
    strong = toy(strong_attacks=FEW | {"attacks": ["PGD", "AutoAttack"]}, robustness=[TICKETS])
    with pytest.raises(ValueError, match="pyautoattack.*pip install"):
        inputs.check_inputs(attacked(strong), "cpu")


def test_a_run_that_is_stopped_between_attacks_goes_on_with_the_same_result(study, monkeypatch):
    whole, cut = attacked(study)
    names, correct = [], kinds.correct

    def counted(*arguments):
        names.append(arguments[3])
        return correct(*arguments)

    monkeypatch.setattr(kinds, "correct", counted)
    make.make(whole)
    once = len(names)
    clock = iter([0.0, 0.0, 0.0, 5.0, 100.0])
    with monkeypatch.context() as patch:
        patch.setenv("DWLT_DEADLINE", "12.0")
        patch.setattr(kinds.time, "time", lambda: next(clock, 8.0))
        with pytest.raises(trainer.OutOfTime):
            make.make(cut)
    assert once < len(names) < 2 * once and under_way(cut) and not store.exists(cut)
    make.make(cut)
    assert len(names) == 2 * once and not under_way(cut)
    files = {name: store.read(cut).read(name) for name in store.read(cut).files}
    shutil.rmtree(store.read(cut).path)
    make.make(cut)
    again = store.read(cut)
    assert all(again.read(name) == data for name, data in files.items())


def test_a_study_keeps_the_weights_of_what_it_attacks_or_of_all(toy):
    kept = {spec.keep for spec in plan(toy(keep_weights=True)).values() if spec.kind == "transfer"}
    assert "none" not in kept
    study = toy(landscapes=[], transfer_attacks=[], robustness=[{**TICKETS, "rounds": [2]}])
    for spec in plan(study).values():
        if spec.kind == "transfer":
            sparse = spec.mask is not None and spec.mask.rounds == 2 and spec.regime == "AT"
            assert spec.keep == ("selected" if sparse else "none")
    (spec,) = attacked(study)
    assert planning.robustness(study, spec.transfer) == spec


def test_extreme_and_undecided_tickets_are_ats_of_every_seed_with_their_dense_networks(
    toy, outputs, monkeypatch
):
    grid = {**TICKETS, "method": ["IMP-ST", "RP"], "rounds": [1, 4, 8], "seeds": [0, 1, 2]}
    others = {**grid, "rounds": [8], "mask_seeds": [0, 1]}  # of which only the first are judged
    study = toy(grid=[grid, others], landscapes=[], transfer_attacks=[], keep_weights=True)
    records_of(study, same={"SA": 0.9, "RA": 0.5, "chance": 0.1, "test_images": 60})

    def asked_for(*words):
        found = [spec.transfer for spec in robustness_specs(study, words)]
        levels = [(s.mask.method, s.mask.rounds) if s.mask else ("dense", 0) for s in found]
        assert {spec.regime for spec in found} <= {"AT"}
        assert all(levels.count(level) == 3 for level in levels)  # every seed
        return set(levels)

    assert asked_for("extreme") >= {("dense", 0), ("IMP-ST", 8), ("RP", 8)}
    table = store.table("transfer", study="toy")
    rows = double_win.verdict(table).sort_values("method")
    rows = rows.assign(extreme_rounds=pd.array([4, None], "Int64"))
    status = ["matches", "undecided", "falls short", "undecided", "falls short", "falls short"]
    levels = noninferiority(table).sort_values(["method", "rounds"]).assign(status=status)
    monkeypatch.setattr(double_win, "verdict", lambda table: rows)
    monkeypatch.setattr(strong_attacks, "noninferiority", lambda *_: levels)
    assert asked_for("extreme") == {("dense", 0), ("IMP-ST", 1), ("IMP-ST", 4)}
    assert asked_for("undecided") == {("dense", 0), ("IMP-ST", 4), ("RP", 1)}
    levels["status"] = "matches"
    assert asked_for("undecided") == set()


def test_tickets_that_cannot_be_attacked_are_refused_in_a_line(toy, outputs):
    study = toy(landscapes=[], transfer_attacks=[])
    ids = [id for id, spec in plan(study).items() if spec.kind == "transfer"]
    with pytest.raises(ValueError, match="1 of 1 tickets keep no weights.*keep_weights: true"):
        robustness_specs(study, ids[:1])
    kept = toy(landscapes=[], transfer_attacks=[], keep_weights=True)
    with pytest.raises(ValueError, match=f"{ids[0]}: no transfer of toy"):
        robustness_specs(kept, ids[:1])
    ids = [id for id, spec in plan(kept).items() if spec.kind == "transfer"]
    with pytest.raises(ValueError, match="2 of 2 tickets are not there yet"):
        robustness_specs(kept, ids[:2])


def test_strong_attacks_on_a_studys_ticket_belong_to_the_study_once_they_are_there(study, toy):
    without = toy(strong_attacks=FEW)
    spec = attacked(study)[-1]
    assert robustness_specs(without, [record_id(spec.transfer)]) == [spec]
    store.write_study(without)
    assert store.table("robustness", study="toy").empty
    assert runner.make_all([spec], runner.RunSettings("cpu"), "one") == runner.DONE
    store.write_study(without)
    assert store.table("robustness", study="toy")["id"].tolist() == [record_id(spec)]
    assert store.missing("toy") == 0
