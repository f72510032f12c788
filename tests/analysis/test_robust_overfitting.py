"""Theorems on robust overfitting: what a record's history and metrics tell, and no more."""

from types import SimpleNamespace

import pandas as pd
import pytest

from dwlt_lib.analysis import robust_overfitting


def record(validated, selection, **metrics):
    history = [{"epoch": i, **({} if ra is None else {"RA": ra})} for i, ra in enumerate(validated)]
    spec = {"recipe": {"selection": selection}}
    return SimpleNamespace(history=history, spec=spec, metrics={"validation_images": 64, **metrics})


def found(records, **columns):
    same = dict(
        pretraining="AT", method="OMP", dataset="d", fraction=1.0, regime="AT", rounds=3, seed=0
    )
    table = pd.DataFrame([{**same, **columns, "id": id} for id in records])
    return robust_overfitting.overfitting_table(table, records.get)


def test_the_fall_is_that_from_the_best_validated_epoch_to_the_last():
    (row,) = found({"a": record([None, 0.3, 0.5, 0.2], "last", RA=0.4, RA_last=0.4)}).itertuples()
    assert row.validation == pytest.approx(0.3) and row.error == pytest.approx(0.05)
    assert pd.isna(row.test)  # the last epoch counts: there is nothing to compare it with
    assert pd.isna(row.sparsity) and (row.method, row.rounds) == ("OMP", 3)


def test_test_images_compare_the_selected_epoch_with_the_last_in_either_direction():
    for ra in (0.5, 0.3):
        (row,) = found({"a": record([0.5, 0.2], "best", RA=ra, RA_last=0.4)}).itertuples()
        assert row.test == pytest.approx(ra - 0.4)


def test_a_network_that_is_best_at_the_end_has_not_overfitted():
    (row,) = found({"a": record([0.1, 0.2, 0.3], "best", RA=0.3, RA_last=0.3)}).itertuples()
    assert row.validation == row.test == 0


def test_what_was_not_validated_twice_or_not_trained_adversarially_is_left_out():
    never, once = record([None, None], "best", RA=0.4, RA_last=0.4), record([None, 0.4], "best")
    columns = list(found({"a": record([0.1, 0.2], "last")}))
    assert list(found({"never": never, "once": once})) == columns
    assert found({"never": never, "once": once}).empty
    assert found({"a": record([0.5, 0.2], "last")}, regime="ST").empty
