"""Theorems on what masks look like (paper, section 6)."""

import numpy as np
import pandas as pd
import pytest
import torch
from seeds import numpy_rng, torch_rng

from dwlt_lib.analysis import mask_patterns
from dwlt_lib.models import architectures
from dwlt_lib.plotting import figures
from dwlt_lib.plotting.style import theta

SHAPES = {
    "conv1.weight": (8, 3, 7, 7),
    "layer1.0.conv1.weight": (8, 8, 3, 3),
    "layer1.0.conv2.weight": (8, 8, 3, 3),
    "layer2.0.conv1.weight": (16, 8, 3, 3),
    "layer2.0.downsample.0.weight": (16, 8, 1, 1),
}


def random_mask(seed, keep=0.25, shapes=SHAPES):
    rng = torch_rng(seed)
    return {name: torch.rand(shape, generator=rng) < keep for name, shape in shapes.items()}


def constant(value):
    return {name: torch.full(shape, value) for name, shape in SHAPES.items()}


def test_masks_by_method_are_the_base_thetas_and_imp_sts_of_the_next_seed():
    rows = [
        (pretraining, method, theta_seed)
        for pretraining in ("STD", "AT")
        for method in ("IMP-ST", "RP")
        for theta_seed in (3, 4, 5)
    ]
    table = pd.DataFrame(rows, columns=["pretraining", "method", "theta_seed"])
    table = table.assign(dataset="d", rounds=2, seed=0)
    found = mask_patterns.masks_by_method(table)
    assert set(found["pretraining"]) == {"AT"}
    assert [*zip(found["method"], found["theta_seed"], strict=True)] == [
        ("IMP-ST", 3),
        ("RP", 3),
        ("IMP-ST-transplant", 4),
    ]
    older = table[table["theta_seed"] == 3].drop(columns="theta_seed")
    assert set(mask_patterns.masks_by_method(older)["method"]) == {"IMP-ST", "RP"}
    assert mask_patterns.masks_by_method(table.iloc[:0]).empty


def test_a_mask_is_wholly_similar_to_itself():
    m = random_mask(0)
    assert mask_patterns.relative_similarity(m, m) == 1.0


def test_similarity_is_symmetric_and_a_fraction():
    a, b = random_mask(0, 0.2), random_mask(1, 0.6)
    assert mask_patterns.relative_similarity(a, b) == mask_patterns.relative_similarity(b, a)
    assert mask_patterns.chance_similarity(a, b) == pytest.approx(
        mask_patterns.chance_similarity(b, a), abs=1e-15
    )
    assert 0 < mask_patterns.relative_similarity(a, b) < 1


def test_disjoint_masks_have_no_similarity_and_two_empty_ones_are_equal():
    a = random_mask(0)
    assert mask_patterns.relative_similarity(a, {name: ~keep for name, keep in a.items()}) == 0.0
    assert mask_patterns.relative_similarity(constant(False), constant(False)) == 1.0
    assert mask_patterns.chance_similarity(constant(False), constant(False)) == 1.0


def test_similarity_by_hand():
    a = {"conv1.weight": torch.tensor([1, 1, 1, 0]).bool().view(1, 1, 2, 2)}
    b = {"conv1.weight": torch.tensor([0, 1, 1, 1]).bool().view(1, 1, 2, 2)}
    assert mask_patterns.relative_similarity(a, b) == 2 / 4


def test_nested_masks_overlap_by_the_ratio_of_their_sizes():
    big = random_mask(0, 0.5)
    small = {
        name: keep & (torch.arange(keep.numel()).view(keep.shape) % 3 == 0)
        for name, keep in big.items()
    }
    count = lambda m: sum(int(k.sum()) for k in m.values())  # noqa: E731
    assert mask_patterns.relative_similarity(big, small) == count(small) / count(big)


def test_chance_is_15_percent_at_the_papers_sparsity():
    shapes = {"layer1.0.conv1.weight": (100, 100, 10, 10)}
    a, b = (random_mask(s, 0.8**6, shapes) for s in (0, 1))
    assert 0.8**6 / (2 - 0.8**6) == pytest.approx(0.151, abs=1e-3)
    assert mask_patterns.chance_similarity(a, b) == pytest.approx(0.151, abs=3e-3)
    assert mask_patterns.relative_similarity(a, b) == pytest.approx(
        mask_patterns.chance_similarity(a, b), abs=2e-3
    )


def test_chance_is_the_mean_over_masks_with_the_same_layerwise_densities():
    a, b = random_mask(0, 0.1), random_mask(1, 0.1)
    a["layer2.0.conv1.weight"] |= random_mask(2, 0.7)["layer2.0.conv1.weight"]
    b["layer2.0.conv1.weight"] |= random_mask(3, 0.7)["layer2.0.conv1.weight"]
    rng = torch_rng(4)

    def shuffle(m):
        return {
            n: k.flatten()[torch.randperm(k.numel(), generator=rng)].view(k.shape)
            for n, k in m.items()
        }

    drawn = [mask_patterns.relative_similarity(shuffle(a), shuffle(b)) for _ in range(200)]
    error = np.std(drawn, ddof=1) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn) - mask_patterns.chance_similarity(a, b)) < 4 * error + 1e-3
    flat = sum(int(k.sum()) for k in a.values()) / sum(k.numel() for k in a.values())
    assert (
        mask_patterns.chance_similarity(a, b) > flat / (2 - flat) + 0.05
    )  # what one density for all layers would give


@pytest.mark.parametrize(
    "measure", [mask_patterns.relative_similarity, mask_patterns.chance_similarity]
)
def test_masks_of_different_architectures_are_refused(measure):
    a = random_mask(0)
    with pytest.raises(ValueError, match="layer9.*want masks of one architecture"):
        measure(a, {**a, "layer9.conv.weight": torch.ones(1, 1, 1, 1).bool()})
    with pytest.raises(ValueError, match=r"conv1.weight \(8, 3, 3, 3\) instead of \(8, 3, 7, 7\)"):
        measure(a, {**a, "conv1.weight": torch.ones(8, 3, 3, 3).bool()})


def test_zero_kernels_by_hand():
    m = constant(True)
    m["layer1.0.conv1.weight"][2, 3] = False  # a whole kernel
    m["layer1.0.conv1.weight"][0] = False  # eight kernels
    m["layer1.0.conv1.weight"][5, 5] = False
    m["layer1.0.conv1.weight"][5, 5, 1, 1] = True  # one weight left: not zero
    m["layer2.0.downsample.0.weight"][:, 0] = False
    found = mask_patterns.zero_kernels(m).set_index("name")
    assert found["zero"].to_dict() == dict(zip(SHAPES, [0, 9, 0, 0, 16], strict=True))
    assert found["kernels"].to_dict() == dict(zip(SHAPES, [24, 64, 64, 128, 128], strict=True))
    assert found["kernel"].to_dict() == dict(zip(SHAPES, [7, 3, 3, 3, 1], strict=True))
    assert found["block"].to_dict() == dict(
        zip(SHAPES, ["stem", "B1", "B1", "B2", "B2"], strict=True)
    )
    assert found.loc["layer1.0.conv1.weight", "density"] == pytest.approx(
        1 - (9 * 9 + 8) / (64 * 9)
    )


def test_zero_pointwise_kernels_only_restate_the_sparsity():
    row = (
        mask_patterns.zero_kernels(random_mask(0, 0.3))
        .set_index("name")
        .loc["layer2.0.downsample.0.weight"]
    )
    assert (
        row["zero"] == round(row["kernels"] * (1 - row["density"])) == pytest.approx(row["chance"])
    )


def test_chance_of_zero_kernels_is_what_random_placement_gives():
    shape, kept, rng = (20, 20, 3, 3), 500, numpy_rng(0)
    counts = []
    for _ in range(200):
        flat = torch.zeros(3600, dtype=torch.bool)
        flat[torch.from_numpy(rng.permutation(3600)[:kept].copy())] = True
        found = mask_patterns.zero_kernels({"layer1.0.conv1.weight": flat.view(shape)}).iloc[0]
        counts.append(found["zero"])
    assert abs(np.mean(counts) - found["chance"]) < 4 * np.std(counts) / np.sqrt(200)


def test_kernel_maps_hold_one_dot_a_kernel_by_block():
    m = random_mask(0, 0.1)
    maps, table = mask_patterns.kernel_map(m), mask_patterns.zero_kernels(m)
    assert set(maps) == {"stem", "B1", "B2"}
    for block, image in maps.items():
        of = table[(table["block"] == block) & (table["kernel"] > 1)]
        assert image.ndim == 2 and image.dtype == bool
        assert (image.count(), image.sum()) == (of["kernels"].sum(), of["zero"].sum())


def test_blocks_of_any_network_are_its_own_stages_in_order_of_depth():
    named = mask_patterns.stages(["patch_embed.proj.weight", "layers.1.blocks.0.attn.qkv.weight"])
    assert [*named.values()] == ["patch_embed", "layers.1"]
    networks = {
        "torchvision/convnext_tiny": [f"features.{i}" for i in range(8)],
        "torchvision/mobilenet_v3_small": [f"features.{i}" for i in range(12)],
        "timm/convnext_atto": ["stem", *(f"stages.{i}" for i in range(4))],
        "timm/vit_tiny_patch16_224(depth=1)": ["patch_embed"],
        "resnet18": ["stem", "B1", "B2", "B3", "B4"],
    }
    for arch, wanted in networks.items():
        if arch.startswith("timm/"):
            pytest.importorskip("timm")
        layers = architectures.prunable(architectures.skeleton(arch, 10))
        m = {name: torch.ones(layer.shape).bool() for name, layer in layers.items()}
        assert [*mask_patterns.kernel_map(m)] == wanted, arch
        table = mask_patterns.zero_kernels(m)
        assert [*table[table["kernel"] > 1]["block"].unique()] == wanted
        columns = [block for block in wanted if block != "stem"]
        fig = figures.kernel_maps({"AT": mask_patterns.kernel_map(m)})
        titles = [ax.get_title() for ax in fig.axes if ax.get_title()]
        assert [title.split(":")[0] for title in titles] == [
            f"{theta('AT')}, {block}" for block in columns
        ]


def test_a_dead_output_channel_is_a_row_of_its_layers_map():
    m = constant(True)
    m["layer1.0.conv2.weight"][3] = False
    image = mask_patterns.kernel_map(m)["B1"]
    assert image[3, -8:].all() and image.sum() == 8


def test_tables_walk_every_mask_record():
    masks = {
        f"{p}{r}": random_mask(7 * r + i, 0.8**r)
        for i, p in enumerate(("AT", "FAT", "STD"))
        for r in (1, 5)
    }
    table = pd.DataFrame(
        [
            dict(id=key, pretraining=key[:-1], method="IMP-ST", rounds=int(key[-1]), seed=0)
            for key in masks
        ]
    )
    pairs, kernels = (
        mask_patterns.similarity_table(table, masks.get),
        mask_patterns.zero_kernel_table(table, masks.get),
    )
    assert (
        sorted(set(pairs["pair"])) == ["FAT and AT", "STD and AT", "STD and FAT"]
        and len(pairs) == 6
    )
    assert (pairs["similarity"] - pairs["chance"]).abs().max() < 0.05
    assert len(kernels) == 6 * len(SHAPES)
    empty = table.iloc[:0]
    assert list(mask_patterns.similarity_table(empty, masks.get)) == list(pairs)
    assert list(mask_patterns.zero_kernel_table(empty, masks.get)) == list(kernels)
