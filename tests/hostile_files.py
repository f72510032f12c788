"""Parameter files that mean harm or are mistaken, written to a folder.

What each does, and what is said of it.
"""

BASE = """\
name: small
arch: resnet8
source: mnist5k
pretraining:
  STD: {epochs: 3, lr: 0.1, schedule: constant}
grid:
  - pretraining: [STD]
    method: [IMP-ST]
    dataset: [digits]
    rounds: [1, 2]
    seeds: [0]
"""


def swap(old, new):
    assert BASE.count(old) == 1
    return BASE.replace(old, new)


def laughs(levels, width):
    """Each level an alias of the one before, `width` times."""
    lines = ["a0: &a0 [x, x]"]
    for i in range(1, levels):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]")
    return BASE + "\n".join(lines) + "\n"


def seeds(n):
    return swap("seeds: [0]", f"seeds: [{','.join(map(str, range(n)))}]")


def product(n):
    """n fractions, n seeds, sixty rounds."""
    fractions = ", ".join(f"{(i + 1) / n:.6f}" for i in range(n))
    return seeds(n).replace(
        "rounds: [1, 2]", f"rounds: {list(range(1, 61))}\n    fraction: [{fractions}]"
    )


NPZ = "loader: npz, classes: 3, size: 8, path: a.npz"
BLOCK = "pretraining: [STD], method: [RP], dataset: [digits], rounds: [1, 2, 3]"

# what: (text or bytes of the file, the line to be named or None, words of the message)
HOSTILE = {
    # too much
    "a billion laughs": (laughs(10, 10), None, "alias 20,000"),
    "a laugh of mappings": (
        BASE
        + "a: &a {x: 1}\n"
        + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)}"
            f" {{{', '.join(f'k{j}: *{chr(97 + i)}' for j in range(9))}}}\n"
            for i in range(9)
        ),
        None,
        "alias",
    ),
    "an alias as a merge": (BASE + "data: {a: &a {classes: 3}, b: {<<: *a}}\n", 12, "'<<' merge"),
    "an anchor that holds itself": (BASE + "title: &a [*a]\n", 12, "itself"),
    "a mapping that holds itself": (BASE + "data: &a {b: *a}\n", 12, "itself"),
    "an alias of nothing": (BASE + "title: *nowhere\n", 12, "alias 'nowhere'"),
    "an alias of nothing with a long name": (BASE + f"title: *{'n' * 9000}\n", 12, "alias"),
    "a file of a megabyte": (BASE + "# " + "x" * 10**6, None, "larger 262,144 bytes"),
    "a megabyte of words": ("title: " + "x " * 500_000, None, "larger"),
    "a million seeds": (seeds(10**6), None, "larger"),
    "thirty thousand seeds": (seeds(30_000), 11, "20,000"),
    "fifteen thousand settings": ("".join(f"k{i}: 1\n" for i in range(15_000)), 10_000, "20,000"),
    "thirty thousand brackets": ("a: [" + "[]," * 30_000 + "]", 1, "20,000"),
    "a product of lists": (product(3000), 7, "grid records 50,000"),
    "many blocks": (
        BASE + f"  - {{{BLOCK}, seeds: [{','.join(map(str, range(900)))}]}}\n" * 20,
        12,
        "grid records 50,000",
    ),
    "a product of landscapes": (
        BASE + f"landscapes:\n  - {{{BLOCK}, seeds: [{','.join(map(str, range(9000)))}]}}\n",
        13,
        "landscapes records",
    ),
    "a product of attacks": (
        BASE + "surrogate: {arch: resnet20}\ntransfer_attacks:\n"
        f"  - {{{BLOCK}, seeds: [{','.join(map(str, range(18_000)))}]}}\n",
        14,
        "transfer_attacks records",
    ),
    "lists nested 4,000 deep": ("a: " + "[" * 4000 + "]" * 4000, 1, "nested 20"),
    "lists nested without an end": ("a: " + "[" * 100_000, 1, "nested"),
    "mappings nested 300 deep": ("\n".join(" " * i + "a:" for i in range(300)), 20, "nested"),
    "sequences nested on one line": ("- " * 4000 + "a", 1, "nested"),
    "ten thousand wrong seeds": (
        swap("seeds: [0]", f"seeds: [{'x,' * 10_000}]"),
        11,
        "grid.0.seeds integer",
    ),
    "a name of 100,000 letters": (swap("small", "a" * 100_000), 1, "name= match"),
    "a key of 100,000 letters": (BASE + "k" * 100_000 + ": 1\n", 12, "not YAML"),
    "a quoted key of 1,000 letters": (BASE + f"'{'k' * 1000}': 1\n", 12, "key name"),
    # numbers
    "5,001 digits": (
        swap("seeds: [0]", f"seeds: [{'9' * 5001}]"),
        11,
        "grid.0.seeds.0 5,001 18 digits",
    ),
    "5,001 digits as text": (
        swap("lr: 0.1", f"lr: '{'9' * 5001}'"),
        5,
        "pretraining.STD.lr number",
    ),
    "5,001 digits in octal": (swap("seeds: [0]", f"seeds: [0{'7' * 5001}]"), 11, "18 digits"),
    "a fraction of 5,000 digits": (swap("lr: 0.1", f"lr: 0.{'1' * 5000}"), 5, "digits"),
    "twenty digits": (swap("seeds: [0]", f"seeds: [{10**19}]"), 11, "digits"),
    "sexagesimal": (
        swap("epochs: 3", "epochs: 1:30"),
        5,
        "pretraining.STD.epochs 1:30 90 write",
    ),
    "a sexagesimal fraction": (swap("lr: 0.1", "lr: 1:30.5"), 5, "lr 1:30.5 90.5 write"),
    "octal": (swap("epochs: 3", "epochs: 010"), 5, "epochs 010 8 write"),
    "hexadecimal": (swap("epochs: 3", "epochs: 0x1F"), 5, "epochs 0x1F 31 write"),
    "binary": (swap("epochs: 3", "epochs: 0b11"), 5, "epochs 0b11 3 write"),
    "grouped by _": (swap("epochs: 3", "epochs: 1_000"), 5, "epochs 1_000 1000 write"),
    "a fraction grouped by _": (swap("lr: 0.1", "lr: 0.0_1"), 5, "lr 0.0_1 0.01 write"),
    "a date": (BASE + "title: 2024-01-01\n", 12, "title 2024-01-01 timestamp quotes"),
    "a date that is none": (BASE + "title: 2024-99-99\n", 12, "title timestamp quotes"),
    "a time": (swap("seeds: [0]", "seeds: [2024-01-01 10:00:00]"), 11, "grid.0.seeds.0 timestamp"),
    "no for a word": (swap("name: small", "name: no"), 1, "name no false quotes"),
    "on for true": (BASE + "deterministic: on\n", 12, "deterministic on true write"),
    "Yes in a list": (swap("[digits]", "[Yes]"), 9, "grid.0.dataset.0 Yes true"),
    "off as a key": (BASE + "off: 1\n", 12, "'off' key bool"),
    "a number as a key": (BASE + "data: {1: {classes: 3}}\n", 12, "'1' key int"),
    "nothing as a key": (BASE + "~: 1\n", 12, "'~' key null"),
    "an equals sign": (BASE + "title: =\n", 12, "title value quotes"),
    "negative zero": (
        BASE + "data: {digits: {eps: -0.0}}\n",
        12,
        "data.digits.eps -0.0 zero write 0",
    ),
    "a number that vanishes below zero": (BASE + "data: {digits: {eps: -1.0e-400}}\n", 12, "zero"),
    "1e400": (swap("lr: 0.1", "lr: 1e400"), 5, "lr='1e400' number"),
    "1.0e+400": (swap("lr: 0.1", "lr: 1.0e+400"), 5, "lr=inf finite"),
    "infinity": (swap("lr: 0.1", "lr: -.inf"), 5, "lr=-inf finite"),
    "not a number": (swap("lr: 0.1", "lr: .NaN"), 5, "lr=nan finite"),
    "an endless training": (swap("epochs: 3", "epochs: 999999999999999999"), 5, "epochs= 1000000"),
    "an endless attack": (BASE + "evaluation_steps: 10000000\n", 12, "evaluation_steps= 1000000"),
    "a batch of 10^17": (
        swap("epochs: 3", "epochs: 3, batch: 100000000000000000"),
        5,
        "batch= 1000000",
    ),
    "a surface of 10^9 points": (
        BASE + "landscape: {points: 1000000001}\n",
        12,
        "landscape.points= 501",
    ),
    # keys and words
    "a key that runs code": (
        BASE + "\"x=1;import os;os.system('true')\": 1\n",
        12,
        "key name letters",
    ),
    "a key of two lines": (BASE + '"seed\\nimport os": 1\n', 12, "key name letters"),
    "a key with quotes": (BASE + "'it''s': 1\n", 12, "key name"),
    "an empty key": (BASE + "'': 1\n", 12, "'' key name"),
    "a list as a key": (BASE + "? [a, b]\n: 1\n", 12, "a list or a mapping as a key"),
    "a mapping as a key": (BASE + "{a: 1}: 1\n", 12, "a list or a mapping as a key"),
    "a key with dots": (BASE + "data: {../../x: {" + NPZ + "}}\n", 12, "../../x key"),
    "a data set's name with braces": (BASE + "data: {'{x}': {" + NPZ + "}}\n", 12, "{x} key"),
    "the same key twice": (BASE + "name: b\n", 12, "name twice"),
    "the same key twice, deep": (swap("lr: 0.1", "lr: 0.1, lr: 0.2"), 5, "lr twice"),
    "NUL in a quoted path": (
        BASE + 'data: {mine: {loader: npz, classes: 3, size: 8, path: "a\\0b"}}\n',
        12,
        "data.mine.path control '\\x00'",
    ),
    "a path of two lines": (
        BASE + 'data: {mine: {loader: npz, classes: 3, size: 8, path: "a\\nb"}}\n',
        12,
        "data.mine.path control '\\n'",
    ),
    "half a character": (BASE + 'title: "\\ud800"\n', 12, "title control"),
    "an escape for terminals": (BASE + 'title: "\\e[2J"\n', 12, "title control"),
    # YAML itself
    "python/object": (
        BASE + "title: !!python/object/apply:os.system ['true']\n",
        12,
        "tag python/object",
    ),
    "python/name": (BASE + "title: !!python/name:os.system\n", 12, "tag python/name"),
    "a tag of one's own": (BASE + "title: !mine x\n", 12, "tag mine"),
    "a tag that makes text a number": (swap("epochs: 3", "epochs: !!int '0x10'"), 5, "tag int"),
    "a set": (BASE + "data: !!set {a, b}\n", 12, "tag set"),
    "binary data": (BASE + "title: !!binary aGk=\n", 12, "tag binary"),
    "several documents": (BASE + "---\nname: b\n", 12, "not YAML document"),
    "a directive of another version": ("%YAML 3.1\n---\n" + BASE, 1, "not YAML version"),
    "a list": ("- a\n- b\n", None, "a list mapping"),
    "a string": ("hello\n", None, "no setting mapping"),
    "a number": ("42\n", None, "no setting mapping"),
    "an empty file": ("", None, "no setting mapping"),
    "a file of comments": ("# nothing\n\n", None, "no setting mapping"),
    "tabs": ("name: small\n\tarch: resnet8\n", 2, "not YAML"),
    "an open quote": (BASE + "title: 'open\n", None, "not YAML"),
    "an open bracket": (BASE + "title: [open\n", None, "not YAML"),
    "NUL": (BASE.encode() + b"title: a\0b\n", 12, "not YAML character"),
    "a NUL file": (b"\0" * 4096, 1, "not YAML character"),
    "Latin-1": (BASE.encode() + "title: ä\n".encode("latin-1"), 12, "0xe4 UTF-8"),
    "UTF-16": (b"\xff\xfe" + BASE.encode("utf-16-le"), 1, "0xff UTF-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), 1, "UTF-8"),
    "JSON cut short": ('{"name": "small", "grid": [', 1, "not YAML"),
}
