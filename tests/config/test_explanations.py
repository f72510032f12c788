"""Theorems on what is said of a parameter file's keys."""

import pytest

from dwlt_lib.config import explanations
from dwlt_lib.config.studies import Grid, Study


def test_every_key_of_a_study_and_of_its_blocks_is_explained():
    keys = {one.key for one in explanations.settings()}
    assert keys >= set(Study.model_fields)
    assert keys >= {f"grid.{name}" for name in Grid.model_fields}
    assert {"transfer.*.epochs", "data.*.eps", "overrides.recipe.lr"} <= keys
    assert all(one.about and one.type for one in explanations.settings())


@pytest.mark.parametrize("key", ["transfer.AT.epochs", "transfer.ST.epochs"])
def test_a_name_within_a_key_stands_for_any(key):
    (found,) = explanations.explain(key)
    assert found.key == "transfer.*.epochs" and "whole number" in str(found)


def test_a_block_brings_its_keys_along():
    found = explanations.explain("margins")
    assert [one.key for one in found] == [
        "margins",
        *(f"margins.{k}" for k in ("SA", "RA", "relative")),
    ]


@pytest.mark.parametrize(
    ("key", "nearest"), [("grid.round", "grid.rounds"), ("epoch", "epochs"), ("titel", "title")]
)
def test_an_unknown_key_is_answered_by_the_nearest(key, nearest):
    with pytest.raises(KeyError, match=f"{key}: no such key; did you mean .*{nearest}"):
        explanations.explain(key)
