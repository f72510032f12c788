"""What a hostile file can do here: nothing.

Every trap springs in an ordinary unpickler, and none in ours.
"""

import ast
import io
import pickle
import struct
import subprocess
import sys
import zipfile
from pickletools import genops

import dill
import pytest
import torch
from checkpoint_files import pretend, refused_in_a_line
from seeds import torch_rng

from dwlt_lib.models import checkpoints, pickles, torch_files
from dwlt_lib.models.pickles import CheckpointError
from dwlt_lib.records.store import checkout

# ------------------------------------------------------------------------------------- opcodes by
# hand


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module, attribute):
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def new_name(module, attribute):  # protocol 4, where an attribute may have dots
    return text(module) + text(attribute) + b"\x93"


def call(what, *arguments):
    return what + b"(" + b"".join(arguments) + b"tR"


def new(what, *arguments):
    return what + b"(" + b"".join(arguments) + b"t\x81"


def storage(kind, key):
    return b"(" + text("storage") + kind + key + text("cpu") + b"K\x01tQ"


class Reduce:
    """Asks its unpickler to call something."""

    def __init__(self, what, *arguments):
        self.call = what, arguments

    def __reduce__(self):
        return self.call


def traps(canary):
    """name: a pickle without its STOP that, in an ordinary unpickler, makes the file `canary`."""
    shell = f"touch {canary}"
    code = f"__import__('os').system({shell!r})"
    system, s, c = name("posix", "system"), text(shell), text(code)
    inner = pickle.dumps(Reduce(__import__("os").system, shell), protocol=2)
    namespace = call(name("argparse", "Namespace"))
    function = {}
    exec(f"def trap():\n    return {code}", function)
    return {
        "reduce": call(system, s),
        "text protocol": b"cos\nsystem\n(V" + shell.encode() + b"\ntR",
        "eval": call(name("builtins", "eval"), c),
        "exec": call(name("builtins", "exec"), c),
        "eval of Python 2": b"\x80\x02" + call(name("__builtin__", "eval"), c),
        "inst": b"(V" + shell.encode() + b"\nios\nsystem\n",
        "obj": b"(" + system + s + b"o",
        "newobj": new(
            name("builtins", "tuple"), new(name("builtins", "map"), system, b"(" + s + b"t")
        ),
        "newobj_ex": new(
            name("builtins", "tuple"),
            name("builtins", "map") + b"(" + system + b"(" + s + b"tt}\x92",
        ),
        "setstate": namespace + b"}" + text("__setstate__") + system + b"sb" + s + b"b",
        "append": namespace + b"}" + text("append") + system + b"sb" + s + b"a",
        "hooks of a tensor": call(
            name("torch._utils", "_rebuild_tensor_v2"), b"NK\x00))\x89", call(system, s)
        ),
        "type of a storage": storage(call(system, s), text("0")),
        "key of a storage": storage(name("torch", "FloatStorage"), call(system, s)),
        "import by torch": call(
            call(name("torch._utils", "_import_dotted_name"), text("posix.system")), s
        ),
        "shell by torch": call(name("torch.utils.collect_env", "run"), s),
        "importlib": call(
            name("builtins", "getattr"),
            call(name("importlib", "import_module"), text("os")),
            text("system"),
        )[:-2]
        + b"tR("
        + s
        + b"tR",
        "runpy": call(name("runpy", "_run_code"), c, b"}"),
        "attrgetter": call(
            call(name("operator", "attrgetter"), text("system")),
            call(name("importlib", "import_module"), text("os")),
        )
        + b"("
        + s
        + b"tR",
        "stack_global": call(new_name("os", "system"), s),
        "dots in a name": call(new_name("shutil", "os.system"), s),
        "name by memo": text("posix")
        + b"\x940"
        + text("system")
        + b"\x940h\x00h\x01\x93("
        + s
        + b"tR",
        "subprocess": call(
            name("subprocess", "check_call"), b"(" + text("touch") + text(str(canary)) + b"l"
        ),
        "a pickle within": call(
            name("_pickle", "loads"), b"B" + struct.pack("<I", len(inner)) + inner
        ),
        "a file within": call(
            name("pickle", "load"),
            call(name("_io", "BytesIO"), b"B" + struct.pack("<I", len(inner)) + inner),
        ),
        "dill": b"\x80\x02" + call(dill.dumps(function["trap"], protocol=2, recurse=True)[2:-1]),
        "key of a dict": b"}" + call(system, s) + b"K\x01s",
        "deep in containers": b"](}" + text("a") + b"]" + call(system, s) + b"aN\x86se",
    }


TRAPS = sorted(traps("/nowhere"))
UNSUSPECTED = ("import by torch", "shell by torch")  # by names that no list has


# ------------------------------------------------------------------------------------- files around
# them


def saved(value, zipped, **how):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped, **how)
    return file.getvalue()


def with_main_pickle(data, change):
    """A file of torch.save whose main pickle went through `change`."""
    if data.startswith(b"PK"):
        old, file = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
        with zipfile.ZipFile(file, "w") as whole:
            for member in old.namelist():
                content = old.read(member)
                whole.writestr(member, change(content) if member.endswith("/data.pkl") else content)
        return file.getvalue()
    stream = io.BytesIO(data)
    for _ in range(3):
        for _ in genops(stream):
            pass
    start = stream.tell()
    for _ in genops(stream):
        pass
    return data[:start] + change(data[start : stream.tell()]) + data[stream.tell() :]


def alone(payload):
    return lambda main: b"\x80\x04" + payload + b"."


def beside(payload):
    """{"extra": the trap, "state_dict": what was there}"""
    return lambda main: (
        b"\x80\x04}(" + text("extra") + payload + text("state_dict") + main[2:-1] + b"u."
    )


def inside(payload):
    """The state dictionary with the trap as one more of its tensors."""
    return lambda main: main[:-1] + text("trap") + payload + b"s."


@pytest.fixture
def state(net):
    return {name: part.contiguous() for name, part in net().state_dict().items()}


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


def test_every_trap_springs_in_an_ordinary_unpickler(tmp_path):
    """Or the tests below would prove nothing.

    In another process, with torch's loader where a trap needs one.
    """
    script = """if True:
        import io, pickle, sys
        class Ordinary(pickle.Unpickler):
            def persistent_load(self, pid): return None
        for path in sys.argv[1:]:
            try: Ordinary(open(path, "rb")).load()
            except Exception as error: print(path, repr(error))
        """
    for i, trap in enumerate(TRAPS):
        (tmp_path / f"{i}.pkl").write_bytes(
            b"\x80\x04" + traps(tmp_path / f"{i}.canary")[trap] + b"."
        )
    done = subprocess.run(
        [sys.executable, "-c", script, *(tmp_path / f"{i}.pkl" for i in range(len(TRAPS)))],
        capture_output=True,
        text=True,
        check=True,
    )
    asleep = [trap for i, trap in enumerate(TRAPS) if not (tmp_path / f"{i}.canary").exists()]
    assert asleep == [], done.stdout


@pytest.mark.parametrize("place", [alone, beside, inside], ids=lambda place: place.__name__)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("trap", TRAPS)
def test_no_trap_springs(trap, zipped, place, state, canary, tmp_path):
    payload = traps(canary)[trap]
    path = tmp_path / "hostile.pth"
    wrapped = {f"module.{name}": part for name, part in state.items()} if place is beside else state
    path.write_bytes(with_main_pickle(saved(wrapped, zipped), place(payload)))
    if place is beside and trap in UNSUSPECTED:
        found = checkpoints.read_checkpoint(
            path, "fat"
        )  # what has no meaning here is harmless, and the weights are good
        assert all(torch.equal(found.weights[name], part) for name, part in state.items())
    else:
        with pytest.raises(CheckpointError) as refusal:
            checkpoints.import_checkpoint(path, "fat" if place is beside else "std")
        assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)
    assert not canary.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_dill_file_with_functions_and_classes_is_read_and_none_of_them_made(
    zipped, state, canary, tmp_path
):
    class Parameters:
        def __init__(self):
            self.here = canary

        def __setstate__(self, state):
            self.here.touch()

    value = {
        "model": {f"module.model.{name}": part for name, part in state.items()},
        "epoch": 3,
        "schedule": lambda epoch: 0.1 ** (epoch // 30),
        "args": Parameters(),
    }
    path = tmp_path / "dill.pt"
    path.write_bytes(saved(value, zipped, pickle_module=dill))
    found = checkpoints.read_checkpoint(path, "at")
    assert all(torch.equal(found.weights[name], part) for name, part in state.items())
    assert b"dill._dill" in path.read_bytes() and not canary.exists()


def test_a_trap_within_a_tensors_name_is_only_text(state, canary, tmp_path):
    inner = pickle.dumps(Reduce(__import__("os").system, f"touch {canary}"), protocol=0).decode()
    path = tmp_path / "name.pth"
    torch.save(
        {
            **state,
            inner: torch.zeros(1),
            f"__import__('os').system('touch {canary}')": torch.zeros(1),
        },
        path,
    )
    with pytest.raises(CheckpointError, match="extra: ") as refusal:
        checkpoints.import_checkpoint(path, "std")
    assert "\n" not in str(refusal.value) and not canary.exists()


def test_a_zip_within_a_zip_is_refused(state, canary, tmp_path):
    hostile = with_main_pickle(saved(state, True), alone(traps(canary)["reduce"]))
    path = tmp_path / "nested.pth"
    with zipfile.ZipFile(path, "w") as whole:
        whole.writestr("resnet.pth", hostile)
    with pytest.raises(CheckpointError, match="unpack it first"):
        checkpoints.import_checkpoint(path, "std")
    with zipfile.ZipFile(path, "w") as whole:  # two checkpoints in one
        for member in ("a/data.pkl", "b/data.pkl"):
            whole.writestr(member, b"\x80\x04" + traps(canary)["reduce"] + b".")
    with pytest.raises(CheckpointError, match="2 data.pkl"):
        checkpoints.import_checkpoint(path, "std")
    assert not canary.exists()


@pytest.mark.parametrize(
    "opcode", [b"\x82\x01", b"\x84\x01\x00\x00\x00", b"\x97", b"\x93", b"\x8f"]
)
def test_operations_that_torch_does_not_write_are_refused_by_name(opcode):
    with pytest.raises(CheckpointError, match="EXT|BUFFER|STACK_GLOBAL|EMPTY_SET"):
        pickles.read_pickle(io.BytesIO(b"\x80\x05" + opcode + b"."))


# ------------------------------------------------------------------------------------- sizes and
# damage


def claim(shape, stride, offset=0, count=4):
    """A pickle of {"fc.bias": a tensor as claimed}."""

    def ints(values):
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in values) + b"t"

    stored = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu")
    stored += ints([count])[1:-1] + b"tQ"
    return (
        b"}"
        + text("fc.bias")
        + call(
            name("torch._utils", "_rebuild_tensor_v2"),
            stored,
            ints([offset])[1:-1],
            ints(shape),
            ints(stride),
            b"\x89",
            b"}",
        )
        + b"s"
    )


@pytest.mark.parametrize(
    "shape, stride, offset, count",
    [
        ([2**39], [1], 0, 2**39),
        ([2**39], [0], 0, 4),
        ([4], [2**39], 0, 4),
        ([4], [1], 2**39, 4),
        ([5], [1], 0, 5),
        ([4], [-1], 3, 4),
        ([2**62], [1], 0, 4),
        ([4], [1], -1, 4),
        ([2, 2], [1], 0, 4),
    ],
)
def test_a_tensor_that_its_file_does_not_hold_is_never_allocated(shape, stride, offset, count):
    data = with_main_pickle(
        saved({"fc.bias": torch.zeros(4)}, True), alone(claim(shape, stride, offset, count))
    )
    contents = torch_files.read_torch_file(data)
    found = contents.value["fc.bias"]
    if isinstance(found, pickles.StoredTensor):
        with pytest.raises(CheckpointError, match="does not lie in"):
            contents.tensor(found)
    else:
        assert isinstance(found, pickles.InertObject)


def test_a_memo_bomb_a_deep_nest_and_a_long_pickle_end_in_a_line():
    double = b"](K\x01K\x02e" + b"".join(
        b"q" + bytes([i]) + b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(200)
    )
    # 2^200 leaves, never walked
    assert len(pickles.read_pickle(io.BytesIO(b"\x80\x04" + double + b".")).value) == 2
    deep = b"\x80\x04" + b")" + b"\x85" * 300_000 + b"."
    assert pickles.read_pickle(io.BytesIO(deep)).value
    keyed = (
        b"\x80\x04}" + b")" + b"\x85" * 300_000 + b"Ns."
    )  # hashing that key would overflow the stack
    assert len(pickles.read_pickle(io.BytesIO(keyed)).value) == 1
    alike = b"".join(
        b"\x8a\x0c" + (i * (2**61 - 1)).to_bytes(12, "little") + b"N" for i in range(100_000)
    )
    assert (
        len(pickles.read_pickle(io.BytesIO(b"\x80\x04}(" + alike + b"u.")).value) == 100_000
    )  # keys of one and the same hash
    with pytest.raises(CheckpointError, match="more than 2,000,000 operations"):
        pickles.read_pickle(io.BytesIO(b"\x80\x04" + b"N0" * 1_100_000 + b"."))
    with pytest.raises(CheckpointError):
        claims_a_lot = struct.pack("<Q", 2**60)
        torch_files.read_torch_file(b"\x80\x02\x8e" + claims_a_lot + b"x.")
    with pytest.raises(CheckpointError):
        torch_files.read_torch_file(b"\x80\x02L" + b"9" * 100_000 + b"L\n.")


@pytest.mark.parametrize(
    "what, data",
    {
        "empty": b"",
        "web page": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
        "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:9e62\nsize 204818947\n",
        "server's error": b'{"error": "not found"}',
        "no file of torch.save": b"hello" * 100,
        "compressed": b"\x1f\x8b" + b"0" * 600,
        "tar": b"a" * 257 + b"ustar" + b"0" * 600,
        "safetensors": b"\x40\0\0\0\0\0\0\0" + b'{"fc.bias": {}}',
    }.items(),
    ids=lambda value: None,
)
def test_what_is_no_checkpoint_is_recognised(what, data):
    with pytest.raises(CheckpointError, match=what) as refusal:
        torch_files.check_start(data)
    assert "\n" not in str(refusal.value)


def test_a_pickle_of_something_else_is_recognised():
    with pytest.raises(CheckpointError, match="not of torch.save"):
        torch_files.read_torch_file(pickle.dumps({"fc.bias": 1}, protocol=2))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_cut_anywhere_is_refused(zipped, state):
    data = saved(state, zipped)
    for cut in [*range(1, 60, 7), *range(60, len(data), len(data) // 40), len(data) - 1]:
        with pytest.raises(CheckpointError) as refusal:
            torch_files.read_torch_file(data[:cut])
        assert "\n" not in str(refusal.value), cut


def test_a_flipped_bit_of_a_zips_tensors_is_noticed(state):
    data = bytearray(saved(state, True))
    where = bytes(data).index(state["layer3.0.conv2.weight"].numpy().tobytes()[:64])
    data[where] ^= 1
    with pytest.raises(CheckpointError, match="damaged"):
        torch_files.read_torch_file(bytes(data))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_spoilt_pickle_ends_in_a_line_or_in_other_plain_values(zipped, state):
    data = saved(
        {
            "state_dict": {"fc.bias": state["fc.bias"]},
            "optimizer": {"lr": 0.1, "state": [1, (2, "x")]},
        },
        zipped,
    )
    draw = torch_rng()

    def spoil(main):
        at, byte = (int(torch.randint(n, (), generator=draw)) for n in (len(main), 256))
        return main[:at] + bytes([byte]) + main[at + 1 :]

    for _ in range(300):
        try:
            contents = torch_files.read_torch_file(with_main_pickle(data, spoil))
            for part in contents.value.values() if isinstance(contents.value, dict) else ():
                if isinstance(part, pickles.StoredTensor):
                    contents.tensor(part)
        except CheckpointError as error:
            assert "\n" not in str(error)


def bombs():
    """{what.

    A pickle without its STOP} that a careless reader works or allocates on without end.
    """
    long = name("x" * 10**6, "y" * 10**6)
    return {
        "a name of two million letters called 20,000 times": long
        + b"q\x000"
        + b"".join([b"h\x00)R0"] * 20_000)
        + b"N",
        "a list that doubles 200 times": b"](K\x01K\x02e"
        + b"".join(
            b"q" + bytes([i]) + b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(200)
        ),
        "a tuple 100,000 deep": b")" + b"\x85" * 100_000,
        "a key 100,000 deep": b"})" + b"\x85" * 100_000 + b"Ns",
        "keys of one hash": b"}("
        + b"".join(
            b"\x8a\x0c" + (i * (2**61 - 1)).to_bytes(12, "little") + b"N" for i in range(50_000)
        )
        + b"u",
        "text of 2^60 bytes": b"\x8d" + struct.pack("<Q", 2**60) + b"x",
        "bytes of 2^60 bytes": b"\x8e" + struct.pack("<Q", 2**60) + b"x",
        "an integer of 2^31 bytes": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x",
        "an integer of 100,000 digits": b"L" + b"9" * 100_000 + b"L\n",
        "a frame of 2^60 bytes": b"\x95" + struct.pack("<Q", 2**60) + b"N",
        "a memo at 2^31": b"Nr\xff\xff\xff\x7f",
        "a get of nothing": b"h\x07",
        "nothing on its stack": b"0",
        "a mark alone": b"(",
        "the extension registry": b"\x82\x01",
        "a buffer of elsewhere": b"\x97",
    }


def around_the_main_pickle(legacy):
    """{what: a file of the older format} whose smaller pickles mean harm."""
    stream, ends = io.BytesIO(legacy), [0]
    for _ in range(5):  # magic number, version, system, the main one, keys of the storages
        for _ in genops(stream):
            pass
        ends.append(stream.tell())
    parts = [legacy[start:end] for start, end in zip(ends, [*ends[1:], None], strict=True)]

    def swapped(which, name):
        return b"".join([*parts[:which], b"\x80\x04" + bombs()[name] + b".", *parts[which + 1 :]])

    deep = b"](" + b")" + b"\x85" * 300_000 + b"e"
    return {
        "a magic number that doubles": swapped(0, "a list that doubles 200 times"),
        "a version that doubles": swapped(1, "a list that doubles 200 times"),
        "a system that doubles": swapped(2, "a list that doubles 200 times"),
        "keys that double": swapped(4, "a list that doubles 200 times"),
        "a key of a storage 300,000 deep": b"".join(
            [*parts[:4], b"\x80\x04" + deep + b".", *parts[5:]]
        ),
    }


def test_no_hostile_checkpoint_is_taken_allocated_for_or_run(state, canary, tmp_path):
    """Traps, bombs, claims, damage and what is no file.

    One line each, in little time and memory.
    """
    sound = tmp_path / "sound.pth"
    torch.save(state, sound)
    folder = tmp_path / "hostile"
    folder.mkdir()
    good, legacy = saved(state, True), saved(state, False)
    huge = {
        "a tensor of 10 TB": ([2**39, 5], [5, 1], 0, 2**39 * 5),
        "10 TB of one number": ([2**39], [0], 0, 4),
        "a tensor by negative steps": ([4], [-1], 3, 4),
        "a tensor far away": ([4], [1], 2**39, 4),
        "a tensor of no row and 2^39 columns": ([0, 2**39], [2**39, 1], 0, 4),
    }
    found = {
        f"trap: {trap}": with_main_pickle(good, alone(payload))
        for trap, payload in traps(canary).items()
    }
    found |= {what: with_main_pickle(good, alone(payload)) for what, payload in bombs().items()}
    found |= {
        f"legacy: {what}": with_main_pickle(legacy, alone(payload))
        for what, payload in bombs().items()
    }
    found |= {what: with_main_pickle(good, alone(claim(*of))) for what, of in huge.items()}
    found |= {f"legacy: {what}": data for what, data in around_the_main_pickle(legacy).items()}
    nested, zipped = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(nested, "w") as whole:
        whole.writestr("a.pth", good)
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as whole:
        whole.writestr("a/data.pkl", b"\x80\x02" + b"N0" * 10**7 + b"N.")
    found |= {
        "a zip in a zip": nested.getvalue(),
        "a zip bomb": zipped.getvalue(),
        "cut": good[:-100],
        "legacy: cut": legacy[:-100],
        "a page": b"<html>",
        "tar": b"a" * 257 + b"ustar" + b"0" * 600,
        "a server's error": b'{"error": 404}',
        "git-lfs": b"version https://git-lfs.github.com/spec/v1\n",
    }
    paths = pretend(folder)
    for i, (what, data) in enumerate(found.items()):
        (folder / f"{i}.pth").write_bytes(data)
        paths[what] = str(folder / f"{i}.pth")
    with open(folder / "page", "wb") as file:
        file.write(b"<html>")
        file.truncate(2**31 - 1)
    paths["a page with a hole of 2 GB"] = str(folder / "page")
    assert len(paths) > 60
    read = "lambda path: checkpoints.read_checkpoint(path, 'std')"
    said = refused_in_a_line(read, str(sound), paths)
    assert (
        "is a pipe; want a file" in said["pipe"]
        and "a web page" in said["a page with a hole of 2 GB"]
    )
    assert not canary.exists()


def test_reading_modules_import_nothing_that_could_unpickle():
    """Neither pickle nor a loader of torch's, nor a way to reach a name by its text."""
    names = ("models/pickles", "models/torch_files", "models/checkpoints", "models/tensor_files")
    for name in names:
        tree = ast.parse((checkout() / "dwlt_lib" / f"{name}.py").read_text(encoding="utf-8"))
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not {"torch.load", "getattr", "eval", "exec", "__import__", "setattr"} & called
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {"pickle", "dill", "importlib", "joblib", "shelve", "marshal"} & imported
