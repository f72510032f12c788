"""Small studies of networks that are not ours, from theta_p to landscapes and shared tickets.

One goes through papermill: a vision transformer of timm, attacked from a network of a user's own.
Its records are to the bit those that one process makes, though both networks draw at random.
"""

import os
import re
from pathlib import Path

import pytest
import torch
from test_end_to_end import contents, dwlt

from dwlt_lib import data, evaluation, pruning, records
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import record_id
from dwlt_lib.execution.make import make
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks, tickets

VIT = (
    "timm/vit_tiny_patch16_224(depth=2, drop_path_rate=0.2, embed_dim=16, img_size=8,"
    " num_heads=2, patch_size=4)"
)
CONVNEXT = "own_network:convnext(width=4)"
OWN = "own_network:build(width=8)"
STUDY = """
name: any_network
arch: ARCH
source: digits
pretraining: {AT: {epochs: 2, batch: 64, lr: 0.1, schedule: one_cycle, steps: 1}}
retraining: {IMP-ST: {epochs: 1, batch: 128, lr: 0.02}}
transfer:
  ST: {epochs: 1, batch: 32, lr: 0.05, schedule: one_cycle}
  AT: {epochs: 2, batch: 32, lr: 0.05, schedule: one_cycle, steps: 1}
evaluation_steps: 1
grid:
  - {pretraining: [AT], method: METHODS, dataset: [digits], fraction: [0.1], rounds: [2],
     regime: [AT], seeds: [0]}
  - {pretraining: [AT], method: [IMP-ST], dataset: [digits], fraction: [0.1], rounds: [2],
     regime: [ST], seeds: [0]}
landscape: {points: 3, count: 20}
landscapes:
  - {pretraining: [AT], method: [IMP-ST], dataset: [digits], fraction: [0.1], rounds: [2],
     seeds: [0]}
"""
ATTACKED = f"""
surrogate: {{arch: '{OWN}', recipe: {{epochs: 1}}}}
transfer_attacks:
  - {{pretraining: [AT], method: [IMP-ST], dataset: [digits], fraction: [0.1], rounds: [2],
      seeds: [0]}}
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Commands find own_network, too."""
    found = str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, found)))


def study_file(folder, arch, more=""):
    if arch.startswith("timm/"):
        pytest.importorskip("timm")
    methods = "[IMP-ST, OMP, RP]" if more else "[IMP-ST, OMP, RP, IMP-ST-shuffled, IMP-ST-reinit]"
    path = folder / "any_network.yaml"
    path.write_text(STUDY.replace("ARCH", arch).replace("METHODS", methods) + more)
    return path


def all_made(path):
    specs = plan(read_study(path)).values()
    for spec in specs:
        make(spec)
    return specs


def check_shared(outputs, ticket, folder, arch):
    """The folder of `dwlt share` is loaded as its card says, and is as accurate as its record."""
    done = dwlt(outputs, "share", ticket, "--out", folder)
    assert done.returncode == 0, done.stderr
    card = (folder / "README.md").read_text()
    (line,) = re.findall(r"^model = (.*)  # torch", card, re.MULTILINE)
    assert (arch in line) == (":" in arch)
    model = eval(line, {"pruning": pruning})
    x, y = data.load("digits", "test")
    accuracy = evaluation.standard_accuracy(model, x.float() / 255, y)
    assert accuracy == pytest.approx(records.read(ticket).metrics["SA"], abs=1e-6)
    if ":" in arch:
        with pytest.raises(ValueError, match="arch is own_network"):
            pruning.load_ticket(folder)


@pytest.mark.parametrize("arch", [CONVNEXT, OWN])
def test_a_study_is_made_from_theta_p_to_a_shared_ticket(arch, outputs, tmp_path):
    specs = all_made(study_file(tmp_path, arch))
    wanted = [spec.transfer for spec in specs if spec.kind == "surface" and spec.transfer.mask]
    for spec in wanted:
        path = tickets.export_ticket(record_id(spec), tmp_path / "ticket")
        ticket, model = tickets.read_ticket(path, arch), tickets.load_ticket(path, arch=arch)
        parameters = dict(model.named_parameters())
        assert set(ticket.mask) == set(architectures.prunable(model))
        assert masks.sparsity(ticket.mask) == pytest.approx(1 - 0.8**2, abs=1e-3)
        assert all((parameters[name][~part] == 0).all() for name, part in ticket.mask.items())
    check_shared(outputs, record_id(wanted[0]), tmp_path / "shared", arch)


def test_a_study_through_papermill_makes_the_same_records_and_its_figures(outputs, tmp_path):
    path = study_file(tmp_path, VIT, ATTACKED)
    done = dwlt(tmp_path / "papermill", "run", path, "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    torch.rand(7)  # whatever was drawn before
    all_made(path)
    assert contents(outputs) == contents(tmp_path / "papermill")
    folder = tmp_path / "papermill" / "studies" / "any_network"
    figures = {file.stem for file in (folder / "figures").glob("*.png")}
    wanted = {"figure_02_contours", "figure_06_trajectories", "figure_07_kernel_maps"}
    assert wanted | {"figure_A8_zero_kernels", "table_A2_transfer_attack"} <= figures
    assert (folder / "report.html").exists()
