"""A mask's bits on the disk are the mask, or are refused."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save
from seeds import torch_rng

from dwlt_lib.models import architectures
from dwlt_lib.models.tensors import fingerprint
from dwlt_lib.pruning import masks, packed_masks


def weights(seed=0):
    rng = torch_rng(seed)
    shapes = {"a.weight": (8, 3, 3, 3), "b.weight": (16, 8, 1, 1), "c.weight": (5, 7)}
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def refused(attempt, said):
    with pytest.raises(ValueError, match=said) as refusal:
        attempt()
    assert "\n" not in str(refusal.value)


def test_packing_round_trips_in_order_and_names_theta():
    m = masks.magnitude_prune(weights(), masks.dense_mask(weights()), 0.6)
    packed = packed_masks.pack(m, fingerprint(weights()))
    back = packed_masks.unpack(packed)
    assert list(back) == list(m)
    assert all(back[name].dtype == torch.bool and torch.equal(back[name], m[name]) for name in m)
    assert packed_masks.packed_header(packed)["theta"] == fingerprint(weights())


def test_a_packed_resnet50_takes_one_bit_a_weight():
    with torch.device("meta"):
        theta = architectures.prunable(architectures.build("resnet50", 1000, (0,) * 3, (1,) * 3))
    m = {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in theta.items()}
    size = len(packed_masks.pack(m))
    assert 23_454_912 / 8 <= size < 23_454_912 / 8 * 1.01


def test_damaged_data_are_refused():
    packed = packed_masks.pack(masks.dense_mask(weights()))
    for data in (
        b"",
        b"\x00" * 20,
        b"not a mask at all",
        packed[:40],
        packed[:-3],
        packed + b"x",
        packed[:8],
    ):
        with pytest.raises(ValueError):
            packed_masks.unpack(data)
    with pytest.raises(ValueError, match="dwlt-mask-1"):
        packed_masks.unpack(packed.replace(b"dwlt-mask-1", b"dwlt-mask-2"))
    with pytest.raises(ValueError):
        packed_masks.unpack(packed.replace(b"[16, 8, 1, 1]", b"[16, 9, 1, 1]"))


def test_a_packed_mask_has_the_same_bytes_in_every_process():
    code = (
        "import torch; from dwlt_lib.pruning.packed_masks import pack; import"
        " hashlib;print(hashlib.sha256(pack({'a.weight': torch.ones(5, dtype=torch.bool)},"
        " 'theta')).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(4)
    }
    assert len(found) == 1


def packed_as(tensors, **header):
    return save(tensors, {"format": "dwlt-mask-1", "shapes": '{"a": [12]}', "theta": "", **header})


@pytest.mark.parametrize(
    "tensors, header",
    [
        ({"b": 2}, {}),
        ({"a": 2, "b": 2}, {}),
        ({"a": 2}, {"shapes": "{"}),
        ({"a": 2}, {"shapes": "[12]"}),
        ({"a": 2}, {"shapes": '{"a": 12}'}),
        ({"a": 2}, {"shapes": '{"a": ["12"]}'}),
        ({"a": 2}, {"shapes": '{"a": [-3, -4]}'}),
        ({"a": 2}, {"shapes": '{"a": [1000000000000]}'}),
        ({"a": 2}, {"shapes": '{"a": ' + "[" * 99_999}),
        ({"a": (2, 5)}, {}),
        ({"a": 0}, {}),
    ],
)
def test_bits_that_contradict_their_header_are_refused_in_a_line(tensors, header):
    data = packed_as(
        {name: torch.zeros(size, dtype=torch.uint8) for name, size in tensors.items()}, **header
    )
    refused(lambda: packed_masks.unpack(data), "mask: the file")


def test_what_is_no_packed_mask_is_refused_in_a_line():
    whole = packed_as({"a": torch.zeros(2, dtype=torch.uint8)})
    assert packed_masks.unpack(whole)["a"].shape == (12,)
    refused(lambda: packed_masks.unpack(packed_as({"a": torch.zeros(2)})), "want the 12 bits")
    for wrong in ("text", None, 3, torch.zeros(4)):
        refused(lambda w=wrong: packed_masks.unpack(w), "want bytes, what pruning.pack wrote")
    for header in (b"[]", b"3", b'{"__metadata__": []}', b"{}", b"[" * 99_999, b"\xff"):
        refused(
            lambda h=header: packed_masks.unpack(len(h).to_bytes(8, "little") + h),
            "not a packed mask",
        )
    short = packed_as({"a": torch.zeros(2, dtype=torch.uint8)}).replace(b'"shapes"', b'"sharps"')
    refused(lambda: packed_masks.unpack(short), "mask: the file is damaged")
