"""Networks by name: torchvision's, timm's, a user's own, from theta_p to an exported ticket."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from dwlt_lib.attacks import PGD, perturb
from dwlt_lib.config import network_names
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import record_id
from dwlt_lib.execution.make import make
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks, tickets

VIT = "timm/vit_tiny_patch16_224(depth=1, embed_dim=16, img_size=8, num_heads=2, patch_size=4)"
OWN = "own_network:build(width=4)"
STUDY = """
name: any_network
arch: ARCH
source: digits
pretraining: {STD: {epochs: 1, batch: 128, lr: 0.02, schedule: one_cycle}}
retraining: {IMP-ST: {epochs: 1, batch: 128, lr: 0.02}}
transfer: {AT: {epochs: 2, batch: 64, lr: 0.02, steps: 1, schedule: one_cycle}}
evaluation_steps: 1
grid:
  - {pretraining: [STD], method: [IMP-ST], dataset: [digits], fraction: [0.1], rounds: [2],
     regime: [AT], seeds: [0]}
landscape: {points: 3, count: 20}
landscapes:
  - {pretraining: [STD], method: [IMP-ST], dataset: [digits], fraction: [0.1], rounds: [2],
     images: [clean], seeds: [0]}
"""


def build(arch):
    if arch.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    return architectures.build(arch, 10, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)).eval()


class Attention(nn.Module):
    """One of torch's, whose projection is a parameter and no layer."""

    def __init__(self):
        super().__init__()
        self.attention, self.fc = nn.MultiheadAttention(4, 2), nn.Linear(4, 2)


def test_attentions_projections_are_prunable_and_the_head_is_not():
    found = architectures.prunable(Attention())
    assert set(found) == {"attention.in_proj_weight", "attention.out_proj.weight"}


@pytest.mark.parametrize("arch, head", [(VIT, "head"), (OWN, "classifier.2")])
def test_masks_are_torchs_and_a_new_head_is_the_only_change(arch, head):
    model = build(arch)
    wanted = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and name != head
    }
    assert set(architectures.prunable(model)) == wanted and architectures.head_name(arch) == head
    model.to(memory_format=torch.contiguous_format)  # as torch's pruning wants it
    m = masks.dense_mask(model)
    m = masks.magnitude_prune(dict(model.named_parameters()), m, 0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    architectures.new_head(model, 3)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= {f"{head}.weight", f"{head}.bias"} and len(after[f"{head}.weight"]) == 3
    layers = [(model.get_submodule(name.removesuffix(".weight")), "weight") for name in m]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=masks.num_kept(m))
    for (layer, _), (name, part) in zip(layers, m.items(), strict=True):
        assert torch.equal(layer.weight_mask.bool(), part), name


@pytest.mark.parametrize("arch", [VIT, OWN])
def test_the_attack_is_foolboxs(arch):
    foolbox, eagerpy = pytest.importorskip("foolbox"), pytest.importorskip("eagerpy")
    model, rng = build(arch).double(), torch.Generator().manual_seed(1)
    x = torch.rand(4, 3, 8, 8, generator=rng, dtype=torch.float64)
    y = torch.randint(10, (4,), generator=rng)
    start = (2 * torch.rand(x.shape, generator=rng, dtype=x.dtype) - 1) * 0.05

    class Same(foolbox.attacks.LinfPGD):
        def get_random_start(self, x0, epsilon):
            return x0 + eagerpy.astensor(start)

    oracle = Same(abs_stepsize=0.013, steps=3, random_start=True)
    theirs, _, _ = oracle(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=0.05)
    ours = perturb(model, x, y, PGD(0.05, 0.013, 3), None, start=start)
    assert (ours - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("arch", [VIT, OWN])
def test_a_study_of_it_is_made_to_a_landscape_and_its_ticket_travels(arch, tmp_path, monkeypatch):
    if arch == VIT:
        pytest.importorskip("timm")
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    (tmp_path / "any.yaml").write_text(STUDY.replace("ARCH", arch))
    specs = plan(read_study(tmp_path / "any.yaml")).values()
    for spec in specs:
        make(spec)
    transfer = next(spec for spec in specs if spec.kind == "transfer" and spec.mask)
    path = tickets.export_ticket(record_id(transfer), tmp_path / "ticket.safetensors")
    named = arch if arch == OWN else None
    model, m = tickets.load_ticket(path, arch=named), tickets.read_ticket(path, named).mask
    assert masks.sparsity(m) == pytest.approx(1 - 0.8**2, abs=1e-3)
    parameters = dict(model.named_parameters())
    assert set(m) == set(architectures.prunable(model))
    assert all((parameters[name][~part] == 0).all() for name, part in m.items())
    if arch == OWN:
        with pytest.raises(ValueError, match="arch is own_network"):
            tickets.load_ticket(path)


def test_a_name_has_one_form_and_what_is_none_is_refused():
    spaced = "timm/convnext_atto( dims=[8,16],depths = (1,1))"
    assert network_names.canonical(spaced) == "timm/convnext_atto(depths=(1, 1), dims=[8, 16])"
    assert (
        network_names.canonical("timm/a()") == "timm/a"
        and network_names.canonical("resnet8") == "resnet8"
    )
    for wrong, said in (
        ("resnet9", "nearest: resnet8"),
        ("timm/a(1)", "plain values"),
        ("timm/a(b=open('c'))", "plain values"),
        ("timm/a(b=1)(c=2)", "plain values"),
        ("timm/a(b={1, 2})", "plain values"),
        ("timm/a(**{})", "plain values"),
        ("timm/a(depth=1000000)", "at most 4096"),
        ("timm/a(pretrained=True)", "pretrained is not"),
        ("timm/hf-hub:a/b", "want one of"),
    ):
        with pytest.raises(ValueError, match=said):
            network_names.canonical(wrong)
        assert not network_names.is_packaged(wrong)
    assert network_names.is_packaged("timm/a(b=1)") and not network_names.is_packaged("os:system")


def test_a_network_that_is_not_there_or_takes_no_such_images_is_one_line():
    for arch, said in (
        ("torchvision/convnext_tinny", "nearest: convnext_tiny"),
        ("own_network:bild", "no attribute 'bild'"),
        ("own_network:build(depth=3)", "unexpected keyword argument"),
        ("no_such_module:build", "No module named"),
        ("own_network:build", "takes no images of 2 x 2"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            architectures.gmac(arch, 2)
        assert len(str(error.value).splitlines()) == 1
