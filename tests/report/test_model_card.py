"""A shared ticket: a folder that is loaded in one line, and a card whose numbers are its own."""

import re
import sys
import types

import pytest
import torch
import yaml

from dwlt_lib import data, evaluation, pruning
from dwlt_lib.config.planning import plan
from dwlt_lib.execution import make
from dwlt_lib.records import store
from dwlt_lib.report import model_card

SHIPPED = store.checkout() / "outputs" / "reference" / "ticket"


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """The id of a toy study's sparse transfer after AT, whose weights were kept."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DWLT_OUTPUTS", str(tmp_path_factory.mktemp("made")))
    specs = [spec for spec in plan(toy(keep_weights=True)).values() if spec.kind == "transfer"]
    (spec, *_) = [one for one in specs if one.mask is not None and one.recipe.attack]
    yield make.make(spec)
    patch.undo()


def test_a_card_states_the_record_and_the_folder_is_loaded(made, tmp_path):
    folder = model_card.share(made, tmp_path / "shared")
    record, card = store.read(made), (folder / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "other" and front["datasets"] == ["stripes"]
    rows = re.findall(r"\| ([\d.]+) % of (\d+) \| ([\d.]+) to ([\d.]+) % \|", card)
    for (share, images, low, high), name in zip(rows, ("SA", "RA"), strict=True):
        assert float(share) == pytest.approx(100 * record.metrics[name], abs=0.051)
        assert int(images) == record.metrics["test_images"]
        assert 0 <= float(low) <= float(share) <= float(high) <= 100
    assert f"load_ticket(&#34;{folder}&#34;)" in card or f'load_ticket("{folder}")' in card
    model = pruning.load_ticket(folder)
    assert not model.training and made in card


def test_the_shipped_ticket_has_the_accuracy_that_its_card_states():
    model = pruning.load_ticket(SHIPPED)
    x, y = data.load("digits", "test")
    found = evaluation.standard_accuracy(model, x.float() / 255, torch.as_tensor(y))
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    (stated,) = re.findall(r"\| as they are \| ([\d.]+) %", card)
    assert 100 * found == pytest.approx(float(stated), abs=0.5)  # of 640 images, 3


def test_what_is_no_trained_ticket_is_refused(toy, made, tmp_path):
    mask = store.read(made).upstream[1]
    with pytest.raises(ValueError, match="is a mask; want a transfer"):
        model_card.share(mask, tmp_path / "no")
    with pytest.raises(KeyError):
        model_card.share("0000", tmp_path / "no")
    assert not (tmp_path / "no").exists()


class Hub(types.ModuleType):
    """Stands in for huggingface_hub: a folder is the hub."""

    def __init__(self, folder):
        super().__init__("huggingface_hub")
        self.folder, self.made = folder, []

    def HfApi(self):  # noqa: N802
        return self

    def create_repo(self, repository, exist_ok):
        self.made.append((repository, exist_ok))

    def upload_folder(self, repo_id, folder_path):
        import shutil

        shutil.copytree(folder_path, self.folder / repo_id)

    def hf_hub_download(self, repository, name):
        return str((self.folder / repository / name).resolve(strict=True))


def test_a_ticket_goes_to_the_hub_and_comes_back(made, tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    folder = model_card.share(made, tmp_path / "shared", "org/name")
    assert model_card.push(folder, "org/name") == "https://huggingface.co/org/name"
    assert hub.made == [("org/name", True)]
    there, here = pruning.load_ticket("org/name"), pruning.load_ticket(folder)
    for name, tensor in here.state_dict().items():
        assert torch.equal(tensor, there.state_dict()[name])
    with pytest.raises(ValueError, match="^org/other: "):
        pruning.load_ticket("org/other")


def test_without_the_hubs_package_one_line_says_so(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="org/name: no such file; .* pip install huggingface_hub"):
        pruning.load_ticket("org/name")
    with pytest.raises(ValueError, match="no package huggingface_hub"):
        model_card.push(tmp_path, "org/name")
