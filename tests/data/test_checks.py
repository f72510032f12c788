"""Theorems on the check of a data set: it says where, how many, and what is wrong."""

import pytest
from layout_files import WNIDS, imagenet
from small_files import MAKERS

from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.data import checks


@pytest.mark.parametrize("name", MAKERS)
def test_a_check_says_where_how_many_and_that_all_is_there(tmp_path, name):
    row = MAKERS[name](tmp_path)
    found, wrong = checks.check(row)
    text = "\n".join(found)
    assert (
        wrong == []
        and str(tmp_path) in text
        and f"train: {row.train_images} images, 3 classes" in text
    )


def test_a_check_counts_against_the_catalogue_and_opens_images(tmp_path):
    row = imagenet(tmp_path)
    victim = next((tmp_path / "val" / WNIDS[0]).iterdir())
    victim.write_bytes(victim.read_bytes()[:300])
    _, wrong = checks.check(row.model_copy(update={"train_images": 13}))
    assert any("12 images; the catalogue says 13" in line for line in wrong)
    assert any(victim.name in line and "want a whole JPEG" in line for line in wrong)


def test_the_check_of_installed_data_sets_is_complete():
    for name in ("mnist5k", "digits"):
        assert checks.check(CATALOGUE[name])[1] == []
