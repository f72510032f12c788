"""A ticket travels, and its numbers with it; no hostile file is taken for one."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from checkpoint_files import pretend, refused_in_a_line, safetensors_file
from safetensors.torch import load_file, save_file
from torch import nn

from dwlt_lib.config import planning, specs
from dwlt_lib.data.batches import load_images
from dwlt_lib.evaluation.accuracy import standard_accuracy
from dwlt_lib.execution.make import make
from dwlt_lib.models import tensor_files
from dwlt_lib.models.architectures import build, prunable
from dwlt_lib.pruning import masks, tickets
from dwlt_lib.pruning.tickets import read_mask
from dwlt_lib.records import store


def content(path):
    """The tensors and the description in a ticket's file, whatever they are."""
    return tensor_files.read(path, tickets.FORMAT, tickets.WRITER, lambda about, header: header)


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """A study's records.

    (its outputs, a mask's id, a transfer's with weights, one without, the dense one's).
    """
    with pytest.MonkeyPatch.context() as patch:
        outputs = tmp_path_factory.mktemp("outputs")
        patch.setenv("DWLT_OUTPUTS", str(outputs))
        plan = [
            spec for spec in planning.plan(toy()).values() if isinstance(spec, specs.TransferSpec)
        ]
        kept = next(spec for spec in plan if spec.keep == "trajectory")
        bare = next(spec for spec in plan if spec.keep == "none" and spec.mask)
        dense = next(spec for spec in plan if spec.keep == "selected" and not spec.mask)
        yield outputs, *(make(spec) for spec in (kept.mask, kept, bare, dense))


@pytest.fixture
def ids(made, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(made[0]))
    return dict(zip(("mask", "kept", "bare", "dense"), made[1:], strict=True))


def test_a_transferred_ticket_gives_its_recorded_accuracy_exactly_elsewhere(
    ids, tmp_path, monkeypatch, toy
):
    for id in (ids["kept"], ids["dense"]):
        record = store.read(id)
        path = tickets.export_ticket(id, tmp_path / "ticket.safetensors")
        spec = next(spec for spec in planning.plan(toy()).values() if specs.record_id(spec) == id)
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("DWLT_OUTPUTS", str(tmp_path / "nothing"))
            model = tickets.load_ticket(path)
        test = load_images(spec.data, "test")
        assert standard_accuracy(model, test.floats(), test.y) == record.metrics["SA"]
        state = load_file(record.path / "weights.safetensors")
        assert (
            all(torch.equal(part, state[name]) for name, part in model.state_dict().items())
            and not model.training
        )
        ticket = tickets.read_ticket(path)
        assert ticket.about["sparsity"] == record.metrics["sparsity"] == masks.sparsity(ticket.mask)
        assert (
            ticket.about["metrics"]["SA"] == record.metrics["SA"] and ticket.about["record"] == id
        )


@pytest.mark.parametrize("kind", ["mask", "kept", "dense"])
def test_no_ticket_is_exported_of_a_file_that_changed(ids, tmp_path, kind, monkeypatch):
    shutil.copytree(store.outputs(), tmp_path / "copy")
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "copy"))
    file = store.read(ids[kind]).path / (
        "mask.safetensors" if kind == "mask" else "weights.safetensors"
    )
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="changed since it was written"):
        tickets.export_ticket(ids[kind], tmp_path / "ticket.safetensors")
    assert not (tmp_path / "ticket.safetensors").exists()


def test_a_mask_travels_as_bits_and_takes_no_other_theta(ids, tmp_path, monkeypatch):
    record = store.read(ids["mask"])
    path = tickets.export_ticket(record, tmp_path / "mask.safetensors")
    m, theta = (
        read_mask(ids["mask"]),
        store.read(record.upstream[0]).path / "weights.safetensors",
    )
    assert sum(part.numel() for part in load_file(path).values()) == sum(
        -(-part.numel() // 8) for part in m.values()
    )
    here = tickets.load_ticket(path)  # theta_p's record is on this machine
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="is not on this machine; give theta="):
        tickets.load_ticket(path)
    for given in (theta, str(theta), load_file(theta)):
        model = tickets.load_ticket(path, given)
        for name, part in model.state_dict().items():
            assert torch.equal(part, here.state_dict()[name])
            assert torch.equal(
                part, load_file(theta)[name] * m[name] if name in m else load_file(theta)[name]
            )
    wrong = load_file(theta)
    wrong["fc.bias"][0] += 1e-6
    save_file(wrong, tmp_path / "wrong.safetensors")
    for given in (wrong, tmp_path / "wrong.safetensors", {}):
        with pytest.raises(
            ValueError, match="drawn from theta_p .* but the one given is"
        ) as refusal:
            tickets.load_ticket(path, given)
        assert "\n" not in str(refusal.value)


def test_a_ticket_is_the_same_bytes_each_time_and_a_description_serves_as_well_as_an_id(
    ids, tmp_path, toy
):
    spec = next(
        spec for spec in planning.plan(toy()).values() if specs.record_id(spec) == ids["kept"]
    )
    found = {
        tickets.export_ticket(record, tmp_path / f"{i}.safetensors").read_bytes()
        for i, record in enumerate((ids["kept"], spec, store.read(spec)))
    }
    assert len(found) == 1


def test_a_damaged_ticket_is_refused_in_one_line(ids, tmp_path):
    path = tickets.export_ticket(ids["kept"], tmp_path / "ticket.safetensors")
    data = path.read_bytes()
    said = data.replace(b'\\"sparsity\\": 0.', b'\\"sparsity\\": 1.')  # in what it says of itself
    assert said != data
    spoilt = [
        data[:-1],
        data[:100],
        b"",
        b"<html>",
        data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        said,
    ]
    for broken in spoilt:
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="damaged|not a file of format") as refusal:
            tickets.load_ticket(path)
        assert "\n" not in str(refusal.value)
    save_file({"fc.bias": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="want one that pruning.export_ticket wrote"):
        tickets.load_ticket(path)


def test_a_ticket_that_contradicts_itself_is_refused_before_anything_large_is_built(ids, tmp_path):
    path = tickets.export_ticket(ids["kept"], tmp_path / "ticket.safetensors")
    tensors, about = content(path)
    for change in (
        {"classes": 10**9},
        {"classes": "x"},
        {"arch": "resnet20"},
        {"arch": "vgg"},
        {"classes": 4},
    ):
        tensor_files.write(path, tensors, {**about, **change})
        with pytest.raises(ValueError, match="does not hold the network that it describes"):
            tickets.load_ticket(path)
    path = tickets.export_ticket(ids["mask"], tmp_path / "mask.safetensors")
    tensors, about = content(path)
    tensor_files.write(path, tensors, {**about, "classes": 7})
    with pytest.raises(ValueError, match="with 7 classes, which theta_p is not"):
        tickets.load_ticket(path)


def hostile_tickets(path):
    """{what it is: its bytes}, made out of a good transferred ticket."""
    good = path.read_bytes()
    tensors, about = content(path)
    size = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + size])
    first, name = next(iter(header["__metadata__"])), "weights/conv1.weight"

    def says(**change):  # with a digest that is right, as its author can make it
        tensor_files.write(
            path,
            tensors,
            {key: value for key, value in {**about, **change}.items() if value is not NOTHING},
        )
        return path.read_bytes()

    def holds(change):
        found = dict(tensors)
        change(found)
        tensor_files.write(path, found, about)
        return path.read_bytes()

    def metadata(text):
        return safetensors_file({**header, "__metadata__": {first: text}}, good[8 + size :])

    def claims(what, **change):
        return safetensors_file({**header, what: {**header[what], **change}}, good[8 + size :])

    whole = 2**42  # bytes
    huge = {"dtype": "F32", "shape": [whole // 4], "data_offsets": [0, whole]}
    empty = {"dtype": "F32", "shape": [0, 2**60], "data_offsets": [0, 0]}
    found = {
        "cut in its numbers": good[:-1],
        "cut in its header": good[: size // 2],
        "cut to 8 bytes": good[:8],
        "one byte more": good + b"x",
        "a bit of its numbers": good[:-3] + bytes([good[-3] ^ 1]) + good[-2:],
        "a bit of its header": good.replace(b"conv1", b"conv0", 1),
        "a web page": b"<html>Sign in</html>",
        "a pickle": b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.",
        "a header of 11 TB": b"\x00" * 5 + b"\x0a\0\0",
        "a header nested 99,999 deep": safetensors_file(b"[" * 99_999),
        "a tensor of 4 TB": safetensors_file({**header, "fc": huge}),
        "a tensor of 4 TB alone": safetensors_file({"fc": huge}),
        "a tensor of no row and 2^60 columns": safetensors_file(
            {**header, "fc": empty}, good[8 + size :]
        ),
        "nothing but a header": safetensors_file({"__metadata__": header["__metadata__"]}),
        "no metadata": safetensors_file(
            {name: part for name, part in header.items() if name != "__metadata__"},
            good[8 + size :],
        ),
        "metadata not JSON": metadata("{"),
        "metadata a list": metadata("[]"),
        "metadata nested 99,999 deep": metadata("[" * 99_999),
        "metadata with a number of a million digits": metadata('{"classes": ' + "9" * 10**6 + "}"),
        "another format": says(format="dwlt-ticket-9"),
        "floats as integers": claims(name, dtype="I32"),
        "a type of four bits": claims(name, dtype="F4"),
        "a shape transposed": claims(
            "weights/fc.weight", shape=header["weights/fc.weight"]["shape"][::-1]
        ),
        "a mask not of bytes": holds(
            lambda found: found.update({"mask/conv1.weight": torch.zeros(54)})
        ),
        "a mask too short": holds(
            lambda found: found.update({"mask/conv1.weight": found["mask/conv1.weight"][1:]})
        ),
        "fewer weights than its mask keeps": holds(
            lambda found: found.update({name: found[name][1:]})
        ),
        "more weights than its mask keeps": holds(
            lambda found: found.update({name: torch.zeros(432)})
        ),
        "a mask missing": holds(lambda found: found.pop("mask/conv1.weight")),
        "a weight missing": holds(lambda found: found.pop("weights/bn1.bias")),
        "a tensor more": holds(lambda found: found.update({"weights/x": torch.zeros(1)})),
        "a tensor of a name of a million letters": holds(
            lambda found: found.update({10**6 * "x": torch.zeros(1)})
        ),
    }
    for what, change in {
        "kind": "pretraining",
        "arch": "vgg",
        "classes": 10**9,
        "std": [0.0, 0.2, 0.2],
        "mean": [0.5, 0.5],
        "theta": 64 * "A",
        "theta_record": "../../*",
    }.items():
        found |= {
            f"no {what}": says(**{what: NOTHING}),
            f"{what} {change}": says(**{what: change}),
            f"{what} a dictionary": says(**{what: {}}),
        }
    for what, change in (
        ("classes", -1),
        ("classes", 0),
        ("classes", True),
        ("classes", 10.0),
        ("classes", 2**70),
        ("arch", "resnet50"),
        ("arch", "x\n" * 10**5),
        ("std", [float("nan")] * 3),
        ("std", [0.2] * 4),
        ("std", [-0.2] * 3),
        ("std", [1e-400] * 3),
        ("mean", [float("inf")] * 3),
        ("mean", ["0.5"] * 3),
        ("mean", [10**400] * 3),
        ("kind", "mask"),
    ):
        found[f"{what} {str(change)[:20]!r}"] = says(**{what: change})
    return found


NOTHING = object()


def test_no_hostile_ticket_is_taken_allocated_for_or_run(ids, tmp_path):
    """Each is refused in one line, in little time and memory, by both doors."""
    sound = tickets.export_ticket(ids["kept"], tmp_path / "ticket.safetensors")
    folder = tmp_path / "hostile"
    folder.mkdir()
    paths = pretend(folder)
    work = tmp_path / "work.safetensors"
    work.write_bytes(sound.read_bytes())
    for i, (what, data) in enumerate(hostile_tickets(work).items()):
        (folder / f"{i}.safetensors").write_bytes(data)
        paths[what] = str(folder / f"{i}.safetensors")
    assert len(paths) > 50
    for read in ("tickets.load_ticket", "tickets.read_ticket"):
        said = refused_in_a_line(read, str(sound), paths)
        assert "is a pipe; want a file" in said["pipe"] and "is a folder" in said["folder"]
        assert "it does not say its kind" in said["no kind"]
        assert "(std is [0.0, 0.2, 0.2])" in said["std [0.0, 0.2, 0.2]"]
        assert "extra: weights/x" in said["a tensor more"]


def test_what_is_no_theta_is_refused_in_a_line_before_its_numbers_are_read(ids, tmp_path):
    mask, kept = (tickets.export_ticket(ids[one], tmp_path / one) for one in ("mask", "kept"))
    theta = store.read(store.read(ids["mask"]).upstream[0]).path / "weights.safetensors"
    state, folder = load_file(theta), tmp_path / "hostile"
    folder.mkdir()
    paths = pretend(folder)
    wide = safetensors_file(
        {"fc.bias": {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 2**33]}}
    )
    with open(folder / "wide", "wb") as file:  # as large as it claims: a hole
        file.write(wide)
        file.truncate(len(wide) + 2**33)
    save_file({**state, "x": torch.zeros(1)}, folder / "more")
    save_file({**state, "fc.bias": state["fc.bias"].double()}, folder / "double")
    paths |= {name: str(folder / name) for name in ("wide", "more", "double")} | {
        "a ticket": str(kept)
    }
    read = f"lambda path: tickets.load_ticket({str(mask)!r}, path)"
    said = refused_in_a_line(read, str(theta), paths)
    assert "extra: x" in said["more"] and "want theta_p as a safetensors file" in said["wide"]
    for wrong in ({"fc.bias": [0.0]}, 3, torch.zeros(3)):
        with pytest.raises(ValueError) as refusal:
            tickets.load_ticket(mask, wrong)
        assert "\n" not in str(refusal.value)


def test_what_is_no_ticket_or_kept_no_weights_is_not_exported(ids, tmp_path):
    theta = store.read(ids["mask"]).upstream[0]
    with pytest.raises(ValueError, match="is a pretraining; want a mask or a transfer"):
        tickets.export_ticket(theta, tmp_path / "no")
    with pytest.raises(ValueError, match="were not kept") as refusal:
        tickets.export_ticket(ids["bare"], tmp_path / "no")
    assert store.read(ids["bare"]).upstream[1] in str(refusal.value)
    with pytest.raises(KeyError, match="20 hexadecimal digits"):
        tickets.export_ticket("0000", tmp_path / "no")
    assert list(tmp_path.iterdir()) == []


def test_loading_needs_torch_safetensors_and_lazy_loader_alone():
    """Not even numpy: every other package is made impossible to import."""
    code = """if True:
        import sys
        import lazy_loader, torch, safetensors.torch
        known = {name.split(".")[0] for name in sys.modules}
        known |= set(sys.stdlib_module_names) | {"dwlt_lib"}
        class Nothing:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] not in known:
                    raise ModuleNotFoundError(name)
        sys.modules["numpy"] = None
        sys.meta_path.insert(0, Nothing())
        import dwlt_lib.pruning.tickets
        dwlt_lib.pruning.tickets.build("resnet8", 10, (0.5,) * 3, (0.5,) * 3)
        print(sorted({name.split(".")[0] for name in sys.modules} - known))
        """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=store.checkout()
    )
    assert done.returncode == 0 and json.loads(done.stdout.replace("'", '"')) == [], done.stderr


class CifarBlock(nn.Module):
    """A basic block of CIFAR's ResNets, by the names that other libraries give its parts."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.shortcut(x)).relu()


def cifar_resnet18():
    """Named modules in the order in which they follow one another, without a forward of its own."""
    widths = [64, 64, 128, 256, 512]
    stages = {
        f"layer{i + 1}": nn.Sequential(
            CifarBlock(widths[i], widths[i + 1], 1 if i == 0 else 2),
            CifarBlock(widths[i + 1], widths[i + 1], 1),
        )
        for i in range(4)
    }
    stem = {"conv1": nn.Conv2d(3, 64, 3, padding=1, bias=False), "bn1": nn.BatchNorm2d(64)}
    return nn.ModuleDict(stem | stages | {"linear": nn.Linear(512, 10)})


def test_a_network_in_the_names_of_cifars_resnets_computes_the_same():
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    model = build("resnet18_32", 10, mean, std).eval()
    masks.apply_(model, masks.magnitude_prune(prunable(model), masks.dense_mask(model), 0.9))
    other = cifar_resnet18().eval()
    state = tickets.cifar_state(model)
    other.load_state_dict(state, strict=True)
    assert all(
        torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True)
    )
    x = torch.rand(2, 3, 32, 32)
    y = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    y = other["bn1"](other["conv1"](y)).relu()
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        y = other[stage](y)
    logits = other["linear"](y.mean((2, 3)))
    torch.testing.assert_close(logits, model(x), rtol=1e-4, atol=1e-4)


def test_another_network_has_no_such_names():
    for model in (build("resnet8", 10, (0.5,) * 3, (0.5,) * 3), nn.Linear(3, 2)):
        with pytest.raises(ValueError, match="want a resnet18_32"):
            tickets.cifar_state(model)
