"""Theorems on duplicates: the same bytes, nearly the same picture, and neither."""

import numpy as np
import pytest
import torch
from layout_files import gtsrb
from small_files import pixels, row, streamed
from typer.testing import CliRunner

from dwlt_lib.cli.main import app
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.data import batches, checks, loading


def images(x):
    return batches.Images(x, torch.zeros(len(x), dtype=torch.int64), row(size=32))


def smooth(n, seed=0):
    """n pictures of 32 x 32 as photographs are: neighbouring pixels are alike."""
    x = torch.from_numpy(pixels(n, 3, 6, 6, seed=seed)).float()
    x = torch.nn.functional.interpolate(x, (32, 32), mode="bicubic").clamp(0, 255)
    return x.round().to(torch.uint8)


def test_the_same_and_nearly_the_same_pictures_are_counted_apart(monkeypatch):
    x = smooth(30)
    brighter = (x[3:5].float() * 0.8 + 40).round().to(torch.uint8)
    noisy = (x[5:8].int() + torch.from_numpy(pixels(3, 3, 32, 32) % 5).int()).clamp(0, 255)
    others = torch.cat([x[:2], brighter, noisy.to(torch.uint8), smooth(20, seed=1)])
    assert checks.count_same(images(x), images(others)) == (2, 5)
    monkeypatch.setattr(checks, "BLOCK", 3)
    assert checks.count_same(images(x), images(others)) == (2, 5)
    assert checks.count_same(images(x), images(x)) == (30, 0)


def test_flat_pictures_are_not_alike_for_being_flat():
    x = torch.full((4, 3, 32, 32), 100, dtype=torch.uint8)
    x[1:] += torch.from_numpy(pixels(3, 3, 32, 32) % 2)
    x[0] = 101
    assert checks.count_same(images(x[:2]), images(x[2:])) == (0, 0)


def test_a_product_of_thumbnails_is_their_correlation():
    x = smooth(5)
    small = torch.nn.functional.avg_pool2d(x.float().mean(1), 4).flatten(1)
    product = checks.thumbnails(x) @ checks.thumbnails(x).T
    assert np.allclose(product, np.corrcoef(small), atol=1e-5)


def test_streamed_pictures_are_compared_as_those_in_memory(tmp_path):
    signs = gtsrb(tmp_path)
    test = loading.listing(signs, "test")
    test.file(2).write_bytes(loading.listing(signs, "train").file(4).read_bytes())
    held = [batches.load_images(signs, split) for split in ("train", "test")]
    assert checks.count_same(*held)[0] == 1
    assert checks.count_same(*held) == checks.count_same(
        *(streamed(signs, split) for split in ("train", "test"))
    )


def test_a_check_counts_what_a_distinct_row_leaves_out_and_both_splits_of_another(tmp_path):
    x = smooth(20).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "a_train.npz", images=x[:10], labels=np.arange(10) % 3)
    np.savez(tmp_path / "a_test.npz", images=x[8:13], labels=np.arange(5) % 3)
    np.savez(tmp_path / "b_train.npz", images=x[13:], labels=np.arange(7) % 3)
    np.savez(tmp_path / "b_test.npz", images=x[7:9], labels=np.arange(2) % 3)
    a, b = (
        row(name=name, size=32, path=str(tmp_path / f"{name}_{{split}}.npz"), distinct=True)
        for name in "ab"
    )
    (line,) = checks.count_duplicates(a, a)
    assert line.startswith("train of a has 2 of the 5 test images of a and nearly 0 others")
    test, train = checks.count_duplicates(a, b)
    assert "has 2 of the 2 test images of b" in test and "0 of the 7 train images of b" in train


@pytest.mark.parametrize("other", ["mnist5k", "digits", "cifar10"])
def test_the_command_counts_or_says_what_is_missing(tmp_path, monkeypatch, other):
    monkeypatch.setenv("DWLT_DATA", str(tmp_path))
    found = CliRunner().invoke(app, ["data", "check", "mnist5k", "--against", other])
    there = CATALOGUE[other].loader == "embedded"
    assert found.exit_code == (0 if there else 1)
    lines = {"mnist5k": 1, "digits": 2, "cifar10": 0}[other]
    assert found.stdout.count("train of mnist5k has") == lines
    assert there or f"dwlt data fetch {other}" in found.stderr


def test_an_unknown_other_is_refused():
    found = CliRunner().invoke(app, ["data", "check", "mnist5k", "--against", "mnist"])
    assert found.exit_code == 2 and found.stderr.count("\n") == 1 and "cifar100" in found.stderr
