"""theta_p comes out of its authors' checkpoints bit for bit, or not at all."""

import dill
import pytest
import torch
from checkpoint_files import (
    normalised,
    older_robust,
    parallel,
    parameters,
    plain,
    robust,
    same_tensors,
    trained_state,
)

from dwlt_lib.models import architectures, checkpoints
from dwlt_lib.models.pickles import CheckpointError
from dwlt_lib.models.tensors import fingerprint

LAYOUTS = [
    ("std", plain, {}),
    ("std", parameters, {}),
    ("at", robust, {"pickle_module": dill}),
    ("at", robust, {}),
    ("at", older_robust, {"pickle_module": dill}),
    ("fat", parallel, {}),
]


def refused(path, source="std", **how):
    with pytest.raises(CheckpointError) as refusal:
        checkpoints.import_checkpoint(path, source, **how)
    assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("source, layout, how", LAYOUTS)
@pytest.mark.parametrize("arch", ["resnet8", "resnet20"])
def test_every_layout_comes_in_bit_for_bit_in_the_networks_order(
    arch, source, layout, how, zipped, tmp_path
):
    state = trained_state(arch)
    torch.save(layout(state), tmp_path / "file", _use_new_zipfile_serialization=zipped, **how)
    found = checkpoints.read_checkpoint(tmp_path / "file", source)
    assert same_tensors(found.weights, state) and same_tensors(
        checkpoints.import_checkpoint(tmp_path / "file", source, arch), state
    )
    assert found.about["arch"] == arch
    assert found.about["theta"] == fingerprint(state)
    if source == "at":
        assert found.about["mean"] == [0.485, 0.456, 0.406] and found.about["std"] == [
            0.229,
            0.224,
            0.225,
        ]


def test_a_resnet50_saved_with_dill_comes_in_bit_for_bit(tmp_path):
    state = trained_state("resnet50", 1000)
    torch.save(robust(state), tmp_path / "imagenet_linf_8.pt", pickle_module=dill)
    found = checkpoints.read_checkpoint(tmp_path / "imagenet_linf_8.pt", "at")
    assert same_tensors(found.weights, state) and (found.about["arch"], found.about["classes"]) == (
        "resnet50",
        1000,
    )


def test_weights_in_another_order_of_memory_come_in_the_same(tmp_path):
    state = trained_state()
    torch.save(
        {
            name: part.contiguous(memory_format=torch.channels_last) if part.dim() == 4 else part
            for name, part in state.items()
        },
        tmp_path / "file",
    )
    found = checkpoints.import_checkpoint(tmp_path / "file", "std")
    assert same_tensors(found, state) and all(part.is_contiguous() for part in found.values())


def test_counters_that_an_old_file_lacks_are_zero_and_said_to_be(tmp_path):
    state = trained_state()
    torch.save(
        {name: part for name, part in state.items() if not name.endswith("tracked")},
        tmp_path / "file",
    )
    found = checkpoints.read_checkpoint(tmp_path / "file", "std")
    assert found.about["counters"] == "absent, so 0" and list(found.weights) == list(state)
    assert all(part.item() == 0 for name, part in found.weights.items() if name.endswith("tracked"))
    del state["bn1.num_batches_tracked"]
    torch.save(state, tmp_path / "file")
    assert "missing: bn1.num_batches_tracked" in refused(tmp_path / "file")


@pytest.mark.parametrize(
    "source, layout, prefix",
    [("std", plain, ""), ("at", robust, "module.model."), ("fat", parallel, "module.")],
)
@pytest.mark.parametrize(
    "name", ["conv1.weight", "bn1.running_var", "layer3.0.downsample.0.weight", "fc.bias"]
)
def test_one_key_missing_extra_or_misshapen_is_refused_by_name(
    source, layout, prefix, name, tmp_path
):
    def attempt(change):
        state = trained_state()
        value = layout(state)
        inner = value.get("model", value.get("state_dict", value))
        change(inner)
        if layout is robust:  # both copies alike
            for key in [key for key in inner if key.startswith("module.attacker.model.")]:
                del inner[key]
            inner |= {
                key.replace("module.model.", "module.attacker.model."): part
                for key, part in list(inner.items())
                if key.startswith("module.model.")
            }
        torch.save(value, tmp_path / "file")
        return refused(tmp_path / "file", source)

    assert f"missing: {name}" in attempt(lambda state: state.pop(prefix + name))
    assert "extra: fc2.weight" in attempt(
        lambda state: state.update({f"{prefix}fc2.weight": torch.zeros(1)})
    )
    said = attempt(
        lambda state: state.update({prefix + name: torch.zeros(*state[prefix + name].shape, 2)})
    )
    assert f"misshapen: {name} " in said and "instead of" in said


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("fc.bias", torch.zeros(10, dtype=torch.float16), "fc.bias is torch.float16"),
        ("fc.bias", torch.zeros(10, dtype=torch.bfloat16), "fc.bias is torch.bfloat16"),
        ("fc.bias", torch.zeros(10, dtype=torch.float64), "fc.bias is torch.float64"),
        ("bn1.running_var", torch.full((16,), torch.nan), "bn1.running_var holds a NaN"),
        (
            "conv1.weight",
            torch.full((16, 3, 3, 3), -torch.inf),
            "conv1.weight holds a NaN or an infinity",
        ),
        ("fc.bias", [0.0] * 10, "fc.bias is list"),
        (3, torch.zeros(1), "3 is StoredTensor; want tensors by name"),
        (
            "fc.bias",
            torch.zeros(10).to_sparse(),
            "fc.bias is an object of torch._utils._rebuild_sparse_tensor",
        ),
    ],
)
def test_what_is_no_finite_float32_tensor_is_refused_by_name(key, value, said, tmp_path):
    torch.save({**trained_state(), key: value}, tmp_path / "file")
    assert said in refused(tmp_path / "file")


def test_a_key_too_long_to_print_is_refused_in_a_line(tmp_path):
    for key in (10**9999, "x\n" * 10**6):
        torch.save({**trained_state(), key: torch.zeros(1)}, tmp_path / "file")
        assert len(refused(tmp_path / "file")) < 400


def test_copies_that_disagree_and_strange_parts_of_a_robust_file_are_refused_by_name(tmp_path):
    for key, value, said in (
        ("module.attacker.model.fc.bias", torch.ones(10), "attacker.model.fc.bias differs"),
        ("module.attacker.model.fc.bias", torch.ones(9), "attacker.model.fc.bias differs"),
        ("module.attacker.model.other", torch.ones(1), "extra: attacker.model.other"),
        ("module.fc.bias", torch.ones(10), "extra: fc.bias"),
        ("module.normalizer.new_gamma", torch.ones(3, 1, 1), "extra: normalizer.new_gamma"),
        (
            "module.attacker.normalize.new_mean",
            torch.ones(3, 1, 1),
            "attacker.normalize.new_mean differs",
        ),
        ("module.normalizer.new_std", torch.ones(3, 224, 224), "normalize.new_std differs"),
    ):
        value_of = robust(trained_state())
        value_of["model"][key] = value
        torch.save(value_of, tmp_path / "file")
        assert said in refused(tmp_path / "file", "at")


def test_a_layout_of_another_source_is_refused_with_the_right_one(tmp_path):
    for source, layout in (("std", plain), ("at", robust), ("fat", parallel)):
        torch.save(layout(trained_state()), tmp_path / "file")
        for other in {"std", "at", "fat"} - {source}:
            assert f"say --as {source}" in refused(tmp_path / "file", other)


def test_a_file_larger_than_any_checkpoint_is_refused_unread(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        file.truncate(2**31 + 1)  # a hole, no bytes
    assert "2,147,483,649 bytes" in refused(tmp_path / "file")


def test_another_network_than_asked_for_and_no_network_of_ours_are_refused(tmp_path):
    torch.save(trained_state("resnet20"), tmp_path / "file")
    assert "not exactly a resnet8 with 10 classes; extra: layer1.1." in refused(
        tmp_path / "file", arch="resnet8"
    )
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "file")
    assert "extra: features.0.weight" in refused(tmp_path / "file")
    for value in (
        torch.zeros(3),
        [],
        {},
        {"model": 3},
        torch.nn.Linear(2, 2),
        {"model": torch.nn.Linear(2, 2)},
    ):
        torch.save(value, tmp_path / "file")
        assert "want a state dictionary" in refused(tmp_path / "file")
    with pytest.raises(ValueError, match="source='mae'"):
        checkpoints.import_checkpoint(tmp_path / "file", "mae")
    with pytest.raises(ValueError, match="'vgg'.*want one of"):
        checkpoints.import_checkpoint(tmp_path / "file", "std", "vgg")


ROBUST = [  # shrunk, else as they are published
    "timm/convnext_tiny(depths=[1, 1, 1, 1], dims=[8, 8, 16, 16])",
    "timm/convnext_tiny(conv_stem=True, depths=[1, 1, 1, 1], dims=[8, 8, 16, 16])",
    "timm/convnext_base(conv_stem=True, depths=[1, 1, 1, 1], dims=[128, 8, 16, 16])",
    "timm/vit_small_patch16_224(depth=1, embed_dim=24)",
    "timm/deit_small_patch16_224(conv_stem=True, depth=1, embed_dim=24)",
]
LAYOUTS_OF_ROBUST = {
    "ares": plain,
    "robustbench": normalised,
    "singh": lambda state: {"state_dict": normalised(state, "module.")},
    "parallel": parallel,
}


@pytest.mark.parametrize("layout", LAYOUTS_OF_ROBUST)
@pytest.mark.parametrize("arch", ROBUST)
def test_convnexts_and_transformers_come_in_bit_for_bit_in_every_layout(arch, layout, tmp_path):
    pytest.importorskip("timm")
    state = trained_state(arch, 1000)
    torch.save(LAYOUTS_OF_ROBUST[layout](state), tmp_path / "file")
    found = checkpoints.read_checkpoint(tmp_path / "file", "robustbench", arch)
    assert same_tensors(found.weights, state) and found.about["pretraining"] == "AT"
    assert found.about["arch"] == arch and found.about["classes"] == 1000
    states = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    told = {name: found.about[name] for name in states if name in found.about}
    assert told == (states if layout in ("robustbench", "singh") else {})
    raw = checkpoints.read_checkpoint(tmp_path / "file", "robustbench-raw", arch).about
    assert (raw["mean"], raw["std"]) == (tuple(told.values()) or ([0.0] * 3, [1.0] * 3))
    path = checkpoints.write_checkpoint(found, tmp_path / "theta.safetensors")
    loaded = dict(sorted(checkpoints.load_checkpoint(path).weights.items()))
    assert same_tensors(loaded, dict(sorted(state.items())))
    state.popitem()
    torch.save(LAYOUTS_OF_ROBUST[layout](state), tmp_path / "file")
    assert "missing: head" in refused(tmp_path / "file", "robustbench", arch=arch)


def test_a_convolutional_stem_has_the_published_names_and_shapes_and_takes_images():
    pytest.importorskip("timm")
    convnext = architectures.state_layout("timm/convnext_tiny(conv_stem=True)", 1000)
    stem = {name: shape for name, (shape, _) in convnext.items() if name.startswith("stem.")}
    weights = [shape for name, shape in stem.items() if name.endswith("weight")]
    assert weights == [(48, 3, 3, 3), (48,), (96, 48, 3, 3), (96,)]
    assert [name for name in stem if name.endswith("weight")] == [
        f"stem.stem.{i}.weight" for i in (0, 1, 3, 4)
    ]
    base = architectures.state_layout("timm/convnext_base(conv_stem=True)", 1000)
    assert base["stem.stem.6.weight"][0] == (128, 96, 3, 3)
    vit = architectures.state_layout("timm/vit_base_patch16_224(conv_stem=True)", 1000)
    assert vit["patch_embed.proj.stem.9.weight"][0] == (384, 192, 3, 3)
    assert vit["patch_embed.proj.stem.12.weight"][0] == (768, 384, 1, 1)
    for arch in ROBUST:
        model = architectures.build(arch, 10, (0.5,) * 3, (0.5,) * 3).eval()
        assert model(torch.rand(1, 3, 224, 224)).shape == (1, 10)
    with pytest.raises(ValueError, match="has no stem of patches"):
        architectures.skeleton("timm/resnet18(conv_stem=True)", 10)
