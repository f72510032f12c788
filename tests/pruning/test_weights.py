"""theta_p comes in bit for bit or not at all; a ticket travels, and its numbers with it."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections import OrderedDict

import dill
import pytest
import torch
from checkpoint_files import (
    older_robust,
    parallel,
    parameters,
    plain,
    pretend,
    refused_in_a_line,
    robust,
)
from safetensors.torch import load_file, save_file
from seeds import set_global
from typer.testing import CliRunner

from dwlt_lib.cli.main import app
from dwlt_lib.config import planning, specs
from dwlt_lib.data.batches import load_images
from dwlt_lib.evaluation.accuracy import standard_accuracy
from dwlt_lib.execution.make import make
from dwlt_lib.models import architectures
from dwlt_lib.models.imported import WEIGHTS
from dwlt_lib.models.pickles import BadCheckpoint
from dwlt_lib.models.tensors import fingerprint
from dwlt_lib.pruning import masks, ticket_files
from dwlt_lib.pruning.ticket_files import mask_of
from dwlt_lib.records import store


def trained_state(arch="resnet8", classes=10):
    """A network's state as training leaves it: no two entries alike, counters above 0."""
    set_global(3)
    model = architectures.build(arch, classes, (0.5,) * 3, (0.5,) * 3)
    state = OrderedDict((name, part.clone()) for name, part in model.state_dict().items())
    for name, part in state.items():
        part.copy_(
            torch.full_like(part, 7) if name.endswith("tracked") else torch.randn(part.shape)
        )
    return state


LAYOUTS = [
    ("std", plain, {}),
    ("std", parameters, {}),
    ("at", robust, {"pickle_module": dill}),
    ("at", robust, {}),
    ("at", older_robust, {"pickle_module": dill}),
    ("fat", parallel, {}),
]


def same(a, b):
    return list(a) == list(b) and all(
        part.dtype == b[name].dtype and torch.equal(part, b[name]) for name, part in a.items()
    )


def refused(path, source="std", **how):
    with pytest.raises(BadCheckpoint) as refusal:
        ticket_files.import_checkpoint(path, source, **how)
    assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)
    return str(refusal.value)


# ----------------------------------------------------------------------------------------------
# checkpoints


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("source, layout, how", LAYOUTS)
@pytest.mark.parametrize("arch", ["resnet8", "resnet20"])
def test_every_layout_comes_in_bit_for_bit_in_the_networks_order(
    arch, source, layout, how, zipped, tmp_path
):
    state = trained_state(arch)
    torch.save(layout(state), tmp_path / "file", _use_new_zipfile_serialization=zipped, **how)
    found = ticket_files.read_checkpoint(tmp_path / "file", source)
    assert same(found.weights, state) and same(
        ticket_files.import_checkpoint(tmp_path / "file", source, arch), state
    )
    assert found.about["arch"] == arch and found.about["container"] == (
        "zip" if zipped else "legacy"
    )
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
    found = ticket_files.read_checkpoint(tmp_path / "imagenet_linf_8.pt", "at")
    assert same(found.weights, state) and (found.about["arch"], found.about["classes"]) == (
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
    found = ticket_files.import_checkpoint(tmp_path / "file", "std")
    assert same(found, state) and all(part.is_contiguous() for part in found.values())


def test_counters_that_an_old_file_lacks_are_zero_and_said_to_be(tmp_path):
    state = trained_state()
    torch.save(
        {name: part for name, part in state.items() if not name.endswith("tracked")},
        tmp_path / "file",
    )
    found = ticket_files.read_checkpoint(tmp_path / "file", "std")
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
        (3, torch.zeros(1), "is no text (int)"),
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
            "differs from the other normaliser",
        ),
        ("module.normalizer.new_std", torch.ones(3, 224, 224), "want a number a channel"),
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
        ticket_files.import_checkpoint(tmp_path / "file", "mae")
    with pytest.raises(ValueError, match="arch='vgg'"):
        ticket_files.import_checkpoint(tmp_path / "file", "std", "vgg")


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_the_same_bytes_every_time_with_their_provenance(tmp_path):
    torch.save(robust(trained_state()), tmp_path / "linf_8.pt", pickle_module=dill)
    done = invoke(
        "weights",
        "import",
        tmp_path / "linf_8.pt",
        "--as",
        "at",
        "--out",
        tmp_path / "a.safetensors",
    )
    assert done.exit_code == 0 and "theta_AT, a resnet8" in done.stdout, done.output
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from dwlt_lib.cli.main import main; main()",
            "weights",
            "import",
            tmp_path / "linf_8.pt",
            "--as",
            "at",
            "--out",
            tmp_path / "b.safetensors",
        ],
        check=True,
    )
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert same(
        dict(sorted(load_file(tmp_path / "a.safetensors").items())),
        dict(sorted(trained_state().items())),
    )
    found = ticket_files.load_checkpoint(tmp_path / "a.safetensors")
    assert found.about["file"] == "linf_8.pt" and found.about["pretraining"] == "AT"
    assert (
        found.about["sha256"] == hashlib.sha256((tmp_path / "linf_8.pt").read_bytes()).hexdigest()
    )


def test_the_command_says_in_one_line_what_it_cannot_take(tmp_path):
    (tmp_path / "page.pth").write_text("<html>")
    for file, out in (
        ("page.pth", "out"),
        ("none.pth", "out"),
        (".", "out"),
        ("page.pth", "no/folder/out"),
    ):
        done = invoke("weights", "import", tmp_path / file, "--as", "std", "--out", tmp_path / out)
        assert done.exit_code == 2 and done.stderr.count("\n") == 1 and done.stdout == "", (
            done.output
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.pth"]


# ----------------------------------------------------------------------------------------------
# tickets


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
        path = ticket_files.export_ticket(id, tmp_path / "ticket.safetensors")
        spec = next(spec for spec in planning.plan(toy()).values() if specs.record_id(spec) == id)
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("DWLT_OUTPUTS", str(tmp_path / "nothing"))
            model = ticket_files.load_ticket(path)
        test = load_images(spec.data, "test")
        assert standard_accuracy(model, test.floats(), test.y) == record.metrics["SA"]
        state = load_file(record.path / "weights.safetensors")
        assert (
            all(torch.equal(part, state[name]) for name, part in model.state_dict().items())
            and not model.training
        )
        ticket = ticket_files.read_ticket(path)
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
        ticket_files.export_ticket(ids[kind], tmp_path / "ticket.safetensors")
    assert not (tmp_path / "ticket.safetensors").exists()


def test_a_mask_travels_as_bits_and_takes_no_other_theta(ids, tmp_path, monkeypatch):
    record = store.read(ids["mask"])
    path = ticket_files.export_ticket(record, tmp_path / "mask.safetensors")
    m, theta = (
        mask_of(ids["mask"]),
        store.read(record.upstream[0]).path / "weights.safetensors",
    )
    assert sum(part.numel() for part in load_file(path).values()) == sum(
        -(-part.numel() // 8) for part in m.values()
    )
    here = ticket_files.load_ticket(path)  # theta_p's record is on this machine
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="is not on this machine; give theta="):
        ticket_files.load_ticket(path)
    for given in (theta, str(theta), load_file(theta)):
        model = ticket_files.load_ticket(path, given)
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
            ticket_files.load_ticket(path, given)
        assert "\n" not in str(refusal.value)


def test_a_ticket_is_the_same_bytes_each_time_and_a_description_serves_as_well_as_an_id(
    ids, tmp_path, toy
):
    spec = next(
        spec for spec in planning.plan(toy()).values() if specs.record_id(spec) == ids["kept"]
    )
    found = {
        ticket_files.export_ticket(record, tmp_path / f"{i}.safetensors").read_bytes()
        for i, record in enumerate((ids["kept"], spec, store.read(spec)))
    }
    assert len(found) == 1


def test_a_damaged_ticket_is_refused_in_one_line(ids, tmp_path):
    path = ticket_files.export_ticket(ids["kept"], tmp_path / "ticket.safetensors")
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
            ticket_files.load_ticket(path)
        assert "\n" not in str(refusal.value)
    save_file({"fc.bias": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="want one that weights.export_ticket wrote"):
        ticket_files.load_ticket(path)


def test_a_ticket_that_contradicts_itself_is_refused_before_anything_large_is_built(ids, tmp_path):
    path = ticket_files.export_ticket(ids["kept"], tmp_path / "ticket.safetensors")
    tensors, about = ticket_files._read(path, ticket_files.TICKET)
    for change in (
        {"classes": 10**9},
        {"classes": "x"},
        {"arch": "resnet20"},
        {"arch": "vgg"},
        {"classes": 4},
    ):
        ticket_files._write(path, tensors, {**about, **change})
        with pytest.raises(ValueError, match="no ticket of the network that it names"):
            ticket_files.load_ticket(path)
    path = ticket_files.export_ticket(ids["mask"], tmp_path / "mask.safetensors")
    tensors, about = ticket_files._read(path, ticket_files.TICKET)
    ticket_files._write(path, tensors, {**about, "classes": 7})
    with pytest.raises(ValueError, match="with 7 classes, which theta_p is not"):
        ticket_files.load_ticket(path)


def as_file(header, data=b""):
    """A safetensors file by hand."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + data


def hostile_tickets(path):
    """{what it is: its bytes}, made out of a good transferred ticket."""
    good = path.read_bytes()
    tensors, about = ticket_files._read(path, ticket_files.TICKET)
    size = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + size])
    first, name = next(iter(header["__metadata__"])), "weights/conv1.weight"

    def says(**change):  # with a digest that is right, as its author can make it
        ticket_files._write(
            path,
            tensors,
            {key: value for key, value in {**about, **change}.items() if value is not NOTHING},
        )
        return path.read_bytes()

    def holds(change):
        found = dict(tensors)
        change(found)
        ticket_files._write(path, found, about)
        return path.read_bytes()

    def metadata(text):
        return as_file({**header, "__metadata__": {first: text}}, good[8 + size :])

    def claims(what, **change):
        return as_file({**header, what: {**header[what], **change}}, good[8 + size :])

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
        "a header nested 99,999 deep": as_file(b"[" * 99_999),
        "a tensor of 4 TB": as_file({**header, "fc": huge}),
        "a tensor of 4 TB alone": as_file({"fc": huge}),
        "a tensor of no row and 2^60 columns": as_file({**header, "fc": empty}, good[8 + size :]),
        "nothing but a header": as_file({"__metadata__": header["__metadata__"]}),
        "no metadata": as_file(
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
    sound = ticket_files.export_ticket(ids["kept"], tmp_path / "ticket.safetensors")
    folder = tmp_path / "hostile"
    folder.mkdir()
    paths = pretend(folder)
    work = tmp_path / "work.safetensors"
    work.write_bytes(sound.read_bytes())
    for i, (what, data) in enumerate(hostile_tickets(work).items()):
        (folder / f"{i}.safetensors").write_bytes(data)
        paths[what] = str(folder / f"{i}.safetensors")
    assert len(paths) > 50
    for read in ("ticket_files.load_ticket", "ticket_files.read_ticket"):
        said = refused_in_a_line(read, str(sound), paths)
        assert "is a pipe; want a file" in said["pipe"] and "is a folder" in said["folder"]
        assert "it does not say its kind" in said["no kind"]
        assert "(std is [0.0, 0.2, 0.2])" in said["std [0.0, 0.2, 0.2]"]
        assert "extra: weights/x" in said["a tensor more"]


def test_what_is_no_theta_is_refused_in_a_line_before_its_numbers_are_read(ids, tmp_path):
    mask, kept = (ticket_files.export_ticket(ids[one], tmp_path / one) for one in ("mask", "kept"))
    theta = store.read(store.read(ids["mask"]).upstream[0]).path / "weights.safetensors"
    state, folder = load_file(theta), tmp_path / "hostile"
    folder.mkdir()
    paths = pretend(folder)
    wide = as_file({"fc.bias": {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 2**33]}})
    with open(folder / "wide", "wb") as file:  # as large as it claims: a hole
        file.write(wide)
        file.truncate(len(wide) + 2**33)
    save_file({**state, "x": torch.zeros(1)}, folder / "more")
    save_file({**state, "fc.bias": state["fc.bias"].double()}, folder / "double")
    paths |= {name: str(folder / name) for name in ("wide", "more", "double")} | {
        "a ticket": str(kept)
    }
    read = f"lambda path: ticket_files.load_ticket({str(mask)!r}, path)"
    said = refused_in_a_line(read, str(theta), paths)
    assert "extra: x" in said["more"] and "want theta_p as a safetensors file" in said["wide"]
    for wrong in ({"fc.bias": [0.0]}, 3, torch.zeros(3)):
        with pytest.raises(ValueError) as refusal:
            ticket_files.load_ticket(mask, wrong)
        assert "\n" not in str(refusal.value)


def test_a_file_of_theta_that_says_nonsense_is_refused_by_studies_and_by_its_reader(tmp_path):
    torch.save(trained_state(), tmp_path / "std.pth")
    sound = ticket_files.write_checkpoint(
        ticket_files.read_checkpoint(tmp_path / "std.pth", "std"), tmp_path / "std.safetensors"
    )
    tensors, about = ticket_files._read(sound, WEIGHTS)
    folder = tmp_path / "hostile"
    folder.mkdir()
    paths = pretend(folder)
    changes = {
        "classes 10^9": {"classes": 10**9},
        "classes a text": {"classes": "10"},
        "arch a list": {"arch": []},
        "theta no hash": {"theta": "x"},
        "arch with lines": {"arch": "x\n" * 10**5},
        "theta a list": {"theta": []},
        "pretraining with lines": {"pretraining": "STD\n"},
        "mean of two": {"mean": [0.5, 0.5]},
    }
    for i, (what, change) in enumerate(changes.items()):
        paths[what] = str(ticket_files._write(folder / f"{i}", tensors, {**about, **change}))
    deep = as_file({"__metadata__": {"dwlt": "[" * 99_999}})
    (folder / "deep").write_bytes(deep)
    paths["metadata nested 99,999 deep"] = str(folder / "deep")
    for name in (
        "classes 10^9",
        "arch with lines",
    ):  # for a study they are another network than its own
        refused_in_a_line("ticket_files.load_checkpoint", str(sound), {name: paths[name]})
    del paths["classes 10^9"]
    refused_in_a_line(
        "lambda path: __import__('dwlt_lib.models.imported').models.imported.about(path)",
        str(sound),
        paths,
    )


def test_what_is_no_ticket_or_kept_no_weights_is_not_exported(ids, tmp_path):
    theta = store.read(ids["mask"]).upstream[0]
    with pytest.raises(ValueError, match="is a pretraining; want a mask or a transfer"):
        ticket_files.export_ticket(theta, tmp_path / "no")
    with pytest.raises(ValueError, match="were not kept") as refusal:
        ticket_files.export_ticket(ids["bare"], tmp_path / "no")
    assert store.read(ids["bare"]).upstream[1] in str(refusal.value)
    with pytest.raises(KeyError, match="20 hexadecimal digits"):
        ticket_files.export_ticket("0000", tmp_path / "no")
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
        import dwlt_lib.pruning.ticket_files
        dwlt_lib.pruning.ticket_files.architectures.build("resnet8", 10, (0.5,) * 3, (0.5,) * 3)
        print(sorted({name.split(".")[0] for name in sys.modules} - known))
        """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=store.checkout()
    )
    assert done.returncode == 0 and json.loads(done.stdout.replace("'", '"')) == [], done.stderr
