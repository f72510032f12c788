"""Theorems on parameter files.

The presets are the paper's, and a mistake is one line that says where and what.
"""

import re

import pytest
from hostile_files import BASE, swap

from dwlt_lib.config import planning
from dwlt_lib.config.parameter_file import PRESETS, BadStudy, parse
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store

ATTACKS = (
    "transfer_attacks:\n  - {pretraining: [STD], method: [RP], dataset: [digits], rounds: [1],"
    " seeds: [0]}\n"
)
LANDSCAPES = (
    "landscapes:\n  - {pretraining: [STD], method: [RP], dataset: [digits], rounds: [1], seeds:"
    " [0]}\n"
)


# what is wrong: (the file, the line to be named or None, words of the message)
BAD = {
    "a number as text": (swap("lr: 0.1", "lr: 5e-4"), 5, "pretraining.STD.lr='5e-4' number 0.0005"),
    "a quotient": (BASE + "data:\n  digits: {eps: 8/255}\n", 13, "data.digits.eps='8/255' 0.0313"),
    "no for a word": (swap("name: small", "name: no"), 1, "name no false quotes"),
    "bool for a whole number": (
        swap("epochs: 3", "epochs: true"),
        5,
        "pretraining.STD.epochs=True integer",
    ),
    "misspelt at the top": (BASE + "sede: 0\n", 12, "sede spelling"),
    "misspelt in a recipe": (
        swap("lr: 0.1", "learning_rate: 0.1"),
        5,
        "pretraining.STD.learning_rate spelling",
    ),
    "misspelt theta_p": (swap("STD: {", "SDT: {"), 5, "SDT 'STD', 'FAT' or 'AT'"),
    "misspelt in a grid": (swap("seeds:", "seed:"), 11, "grid.0.seed: spelling"),
    "misspelt in an override": (
        BASE + "overrides:\n  - {datset: digits, recipe: {lr: 0.1}}\n",
        13,
        "overrides.0.datset spelling",
    ),
    "misspelt in an override's recipe": (
        BASE + "overrides:\n  - dataset: digits\n    recipe:\n      epoch: 3\n",
        15,
        "overrides.0.recipe.epoch spelling",
    ),
    "misspelt in a data set": (
        BASE + "data:\n  digits:\n    epsilon: 0.1\n",
        14,
        "data.digits.epsilon spelling",
    ),
    "misspelt in landscape": (BASE + "landscape: {point: 5}\n", 12, "landscape.point: spelling"),
    "misspelt in the surrogate's recipe": (
        BASE + "surrogate:\n  recipe: {epohs: 3}\n",
        13,
        "surrogate.recipe.epohs spelling",
    ),
    "misspelt retraining": (BASE + "retraining:\n  IMP: {epochs: 3}\n", 13, "IMP 'IMP-ST'"),
    "unknown data set": (swap("[digits]", "[digit]"), 9, "'digit' digits, mnist5k data:"),
    "unknown source": (swap("mnist5k", "mnist"), 3, "'mnist' mnist5k"),
    "unknown data set in an override": (
        BASE + "overrides:\n  - {dataset: digit, recipe: {lr: 1.0}}\n",
        None,
        "'digit' digits",
    ),
    "duplicate key": (BASE + "name: other\n", 12, "name twice"),
    "duplicate key inside": (swap("lr: 0.1", "lr: 0.1, lr: 0.2"), 5, "lr twice"),
    "empty list": (swap("[IMP-ST]", "[]"), 8, "grid.0.method at least one"),
    "empty grid": (
        "name: a\narch: resnet8\nsource: digits\ngrid: []\n",
        None,
        "nothing grid masks landscapes",
    ),
    "repeated entry": (swap("[1, 2]", "[1, 1]"), 10, "grid.0.rounds [1, 1] twice"),
    "repeated fraction": (swap("    rounds", "    fraction: [1, 1.0]\n    rounds"), 10, "twice"),
    "negative eps": (BASE + "data:\n  digits: {eps: -0.1}\n", 13, "data.digits.eps=-0.1 0"),
    "eps in 255ths": (BASE + "data:\n  digits: {eps: 8}\n", 13, "data.digits.eps=8 8/255 0.0313"),
    "training eps in 255ths": (
        swap("  STD:", "  AT: {eps: 8}\n  STD:"),
        5,
        "pretraining.AT.eps=8 8/255",
    ),
    "rounds 61": (swap("[1, 2]", "[61]"), 10, "grid.0.rounds.0=61 60"),
    "rounds -1": (swap("[1, 2]", "[-1]"), 10, "grid.0.rounds.0=-1 0"),
    "fraction 0": (
        swap("    rounds", "    fraction: [0]\n    rounds"),
        10,
        "grid.0.fraction.0=0 greater than 0",
    ),
    "fraction 1.5": (
        swap("    rounds", "    fraction: [1.5]\n    rounds"),
        10,
        "grid.0.fraction.0=1.5 1",
    ),
    "milestones beyond the epochs": (
        swap("constant", "steps, milestones: [3]"),
        5,
        "pretraining STD [3] 3 epochs milestones",
    ),
    "the preset's milestones beyond the epochs": (
        BASE + "transfer:\n  AT: {epochs: 75}\n",
        13,
        "digits AT [50, 75] 75 epochs",
    ),
    "surrogate of the tickets' architecture": (
        BASE + ATTACKS + "surrogate:\n  arch: resnet8\n",
        15,
        "resnet8 another",
    ),
    "one epoch cannot draw a path": (
        BASE + LANDSCAPES + "transfer:\n  AT: {epochs: 1, schedule: constant}\n",
        12,
        "trajectory 2 or more",
    ),
    "a grid without a centre": (
        BASE + LANDSCAPES + "landscape: {points: 10}\n",
        14,
        "landscape.points=10 odd",
    ),
    "too few images to hold out": (
        BASE + "transfer:\n  ST: {validation: held_5000}\n",
        13,
        "held_5000 1157 tenth",
    ),
    "validation that begins after training": (
        BASE + "transfer:\n  AT: {validate_ra_from: 101}\n",
        13,
        "validate_ra_from=101 100",
    ),
    "a probe longer than its training": (
        BASE + "transfer:\n  AT: {linear_probe_epochs: 101}\n",
        13,
        "linear_probe_epochs=101 100",
    ),
    "a probe before theta_p": (
        swap("lr: 0.1", "linear_probe_epochs: 1, lr: 0.1"),
        5,
        "linear_probe_epochs=1 transfer",
    ),
    "eps that grows where there is none": (
        BASE + "transfer:\n  ST: {eps_warmup: 0.5}\n",
        13,
        "eps_warmup=0.5 ST AT",
    ),
    "milestones that only an override has": (
        BASE
        + "overrides:\n  - {dataset: svhn, recipe: {epochs: 9}}\n"
        + "  - {dataset: digits, recipe: {milestones: [100]}}\n",
        14,
        "digits [100] 100 epochs",
    ),
    "milestones of retraining": (
        BASE + "retraining:\n  IMP-ST: {schedule: steps,\n    milestones: [40]}\n",
        14,
        "mask [40] 30 epochs",
    ),
    "milestones of the surrogate": (
        BASE + ATTACKS + "surrogate:\n  arch: resnet20\n  recipe: {milestones: [90]}\n",
        16,
        "resnet20 [90] 90 epochs",
    ),
    "fewer images than classes": (
        swap("    rounds", "    fraction: [1.0, 0.008]\n    rounds"),
        10,
        "fraction=0.008 9 training images digits 10 classes larger",
    ),
    "the best of no validation": (
        BASE + "transfer:\n  AT: {batch: 32}\n  ST: {selection: best, validation: none}\n",
        14,
        "ST selection=best validation=none",
    ),
    "eps that never arrives": (
        BASE + "transfer:\n  AT: {eps_warmup: 1.0}\n",
        13,
        "transfer.AT.eps_warmup=1.0 less",
    ),
    "shares of the area that fall": (
        BASE + "data:\n  digits: {scale: [0.9, 0.5]}\n",
        13,
        "data.digits scale=[0.9, 0.5] smaller",
    ),
    "not YAML": ("name: [small\ngrid: }", 2, "not YAML"),
    "a tab": ("name: small\n\tarch: resnet8\n", 2, "not YAML"),
    "a tag that runs code": (
        BASE + "title: !!python/object/apply:os.system ['true']\n",
        12,
        "not YAML",
    ),
    "two documents": (BASE + "---\nname: b\n", 12, "not YAML"),
    "an anchor that holds itself": (BASE + "title: &a [*a]\n", 12, "itself"),
    "endless nesting": ("a: " + "[" * 4000 + "]" * 4000, 1, "nested"),
    "empty file": ("", None, "mapping name, arch, source and grid"),
    "list at the top": ("- name: a\n- arch: b\n", None, "list mapping"),
    "a word at the top": ("hello", None, "no setting mapping"),
    "wrong preset": (BASE + "preset: as_papr\n", 12, "preset='as_papr' 'as_paper' 'as_code'"),
    "missing grid": ("name: a\narch: resnet8\nsource: digits\n", None, "nothing asked grid masks"),
    "missing entry of a grid": (swap("    seeds: [0]\n", ""), 7, "grid.0.seeds is missing"),
    "a grid that is no list": (swap("  - pre", "    pre"), 6, "grid= array"),
    "a number for a list": (swap("[1, 2]", "2"), 10, "grid.0.rounds=2 array"),
    "a name with a slash": (swap("small", "a/b"), 1, "name='a/b'"),
    "a name of dots": (swap("small", "../../escaped"), 1, "name='../../escaped'"),
    "a name with a new line": (swap("small", '"a\\n"'), 1, "name='a\\n'"),
    "a data set's name with dots": (
        BASE + "data:\n  ../x: {loader: npz, classes: 3, size: 8, path: a}\n",
        13,
        "../x",
    ),
    "float seed": (swap("[0]", "[0.5]"), 11, "grid.0.seeds.0=0.5 integer"),
    "negative seed": (swap("[0]", "[-1]"), 11, "grid.0.seeds.0=-1 0"),
    "unknown architecture": (swap("resnet8", "resnet9"), 2, "arch: 'resnet9' resnet8 resnet50"),
    "unknown method": (swap("[IMP-ST]", "[IMP]"), 8, "grid.0.method.0='IMP' 'IMP-ST'"),
    "not a number": (swap("lr: 0.1", "lr: .nan"), 5, "pretraining.STD.lr=nan finite"),
    "infinity": (swap("lr: 0.1", "lr: .inf"), 5, "pretraining.STD.lr=inf finite"),
    "a rate of 0": (swap("lr: 0.1", "lr: 0"), 5, "pretraining.STD.lr=0 greater than 0"),
    "momentum 1": (swap("lr: 0.1", "momentum: 1.0"), 5, "pretraining.STD.momentum=1.0 less than 1"),
    "a batch of 1": (swap("lr: 0.1", "batch: 1"), 5, "pretraining.STD.batch=1 2"),
    "nothing for a recipe": (
        swap(" {epochs: 3, lr: 0.1, schedule: constant}", ""),
        5,
        "pretraining.STD=None",
    ),
    "a setting taken out": (swap("lr: 0.1", "lr: null"), None, "ST recipe lacks lr"),
    "a data set under another name": (
        BASE + "data:\n  digits: {name: svhn}\n",
        13,
        "data.digits.name='svhn' digits",
    ),
    "an embedded data set that is not there": (
        BASE + "data:\n  mine: {loader: embedded, classes: 3, size: 8}\n",
        13,
        "data.mine.loader='embedded' npz",
    ),
    "files without a path": (
        BASE + "data:\n  mine: {loader: npz, classes: 3, size: 8}\n",
        13,
        "mine.path missing",
    ),
    "a data set with 1 class": (
        BASE + "data:\n  digits: {classes: 1}\n",
        13,
        "data.digits.classes=1 2",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_refused_in_one_line_with_place_value_and_remedy(what):
    text, line, words = BAD[what]
    with pytest.raises(BadStudy) as error:
        parse(text, "params/bad.yaml")
    message = str(error.value)
    assert "\n" not in message and len(message) < 330
    assert message.startswith(f"params/bad.yaml:{line}: " if line else "params/bad.yaml: "), message
    for word in words.split():
        assert word in message, message
    assert "Traceback" not in message and "pydantic" not in message and "type=" not in message


def test_one_mistake_is_reported_as_one():
    for text in (swap("[1, 2]", "[61]"), swap("lr: 0.1", "lr: 5e-4"), BASE + "sede: 0\n"):
        with pytest.raises(BadStudy) as error:
            parse(text, "a.yaml")
        assert "more)" not in str(error.value)
    with pytest.raises(BadStudy, match=r"\(and 1 more\)"):
        parse(swap("[1, 2]", "[61]") + "sede: 0\n", "a.yaml")


def test_a_good_file_is_read_and_the_tour_too():
    study = parse(BASE, "small.yaml")
    assert (study.name, study.grid[0].rounds, study.seed, study.prune_fraction) == (
        "small",
        (1, 2),
        0,
        0.2,
    )
    assert planning.theta(study, "STD").recipe.lr == 0.1
    for path in sorted((store.checkout() / "params").glob("*.yaml")):
        assert len(planning.plan(read_study(path))) > 0


def test_whole_numbers_serve_as_fractions_and_rates():
    study = parse(
        swap("lr: 0.1", "lr: 1").replace("    rounds", "    fraction: [1]\n    rounds"), "a.yaml"
    )
    assert study.grid[0].fraction == (1.0,) and study.pretraining["STD"].lr == 1.0


def big(preset, **settings):
    lines = {"name": "big", "arch": "resnet50", "source": "cifar100", "preset": preset, **settings}
    head = "".join(f"{key}: {value}\n" for key, value in lines.items())
    return parse(
        head
        + "grid:\n  - {pretraining: [STD, FAT, AT], method: [IMP-ST, IMP-AT], dataset: [cifar10,"
        " svhn], fraction: [1.0, 0.1], rounds: [6], seeds: [0, 1, 2]}\n",
        "big.yaml",
    )


def transfer(study, name, regime):
    return planning.transfer(study, "AT", "IMP-AT", name, 1.0, regime, 6, 0)


def values(recipe):
    return (
        recipe.batch,
        recipe.lr,
        recipe.schedule,
        recipe.milestones,
        recipe.epochs,
        recipe.weight_decay,
        recipe.momentum,
    )


def test_as_paper_is_sections_3_and_a1():
    study = big("as_paper")
    for regime in ("ST", "AT"):
        assert values(transfer(study, "cifar10", regime).recipe) == (
            128,
            0.1,
            "steps",
            (50, 75),
            100,
            5e-4,
            0.9,
        )
        assert values(transfer(study, "svhn", regime).recipe) == (
            128,
            0.01,
            "cosine",
            (),
            80,
            5e-4,
            0.9,
        )
    attack = transfer(study, "cifar10", "AT").recipe.attack
    assert (attack.eps, attack.alpha, attack.steps, attack.random_start) == (
        8 / 255,
        2 / 255,
        10,
        True,
    )
    assert transfer(study, "cifar10", "ST").recipe.attack is None
    assert transfer(study, "cifar10", "ST").evaluation.steps == 20
    retrain = planning.mask(study, "AT", "IMP-AT", 6).retrain
    assert values(retrain) == (2048, 5e-4, "constant", (), 30, 1e-4, 0.9)
    assert (retrain.attack.eps, retrain.attack.alpha, retrain.attack.steps) == (8 / 255, 2 / 255, 3)
    assert study.subset_rule == "stratified" and study.prune_fraction == 0.2


def test_as_code_is_what_the_authors_scripts_do():
    study = big("as_code")
    assert values(transfer(study, "cifar10", "ST").recipe) == (
        64,
        0.001,
        "steps",
        (50, 100),
        150,
        5e-4,
        0.9,
    )
    assert values(transfer(study, "cifar10", "AT").recipe) == (
        128,
        0.1,
        "steps",
        (50, 75),
        100,
        5e-4,
        0.9,
    )
    assert values(transfer(study, "svhn", "AT").recipe)[1:5] == (0.01, "cosine", (), 80)
    assert values(transfer(study, "svhn", "ST").recipe)[1] == 0.001
    assert planning.mask(study, "AT", "IMP-AT", 6).retrain.attack.alpha == 16 / (3 * 255)
    ticket = transfer(study, "cifar10", "AT")
    assert (ticket.data.size, ticket.data.crop, ticket.data.augment) == (
        224,
        0.875,
        ("resized_crop", "flip"),
    )
    assert ticket.data.mean == (
        0.4914,
        0.4822,
        0.4465,
    )  # the catalogue's, where the preset says nothing
    assert (ticket.recipe.validation, ticket.subset_rule) == ("held_5000", "first_n")
    svhn, fast = transfer(study, "svhn", "AT").recipe, transfer(study, "svhn", "FAT").recipe
    assert values(fast) == values(svhn)  # ours: AT but for its attack


def test_as_code_validates_ra_in_the_epochs_that_the_authors_scripts_do():
    study = big("as_code")
    for name, first, epochs in (("cifar10", 46, 100), ("svhn", 1, 80)):
        config = transfer(study, name, "AT").recipe
        asked = [epoch for epoch in range(1, epochs + 1) if config.evaluates_robustly_at(epoch)]
        assert asked == list(range(first, epochs + 1))
    fast = transfer(study, "cifar10", "FAT").recipe
    assert fast.validate_ra_from is None  # after each, to see a collapse
    assert transfer(big("as_paper"), "cifar10", "AT").recipe.validate_ra_from is None


def test_as_code_trains_on_all_of_cifar100_and_as_paper_on_none_of_its_test_images():
    rows = [transfer(big(preset), "cifar100", "ST").data for preset in ("as_code", "as_paper")]
    assert [row.distinct for row in rows] == [False, True]


def test_as_code_shows_visda17_as_the_authors_do_and_selects_its_st_on_the_test_images():
    study = big("as_code")
    st = transfer(study, "visda17", "ST")
    row = st.data
    assert (row.size, row.crop, row.resize, row.scale) == (224, 1.0, "both", (0.75, 1.33))
    assert row.augment == ("resized_crop", "flip")
    assert (row.mean, row.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert values(st.recipe) == (64, 0.001, "steps", (50, 100), 150, 5e-4, 0.9)
    assert st.recipe.validation == "test"
    for regime in ("FAT", "AT"):  # not in their code
        assert transfer(study, "visda17", regime).recipe.validation == "tenth"
    row = transfer(big("as_paper"), "visda17", "ST").data
    assert (row.crop, row.resize, row.scale) == (0.875, "shorter", (0.08, 1.0))


def test_a_file_lies_over_its_preset_setting_by_setting():
    study = big(
        "as_paper", transfer="{AT: {lr: 0.3}}", overrides="[{dataset: svhn, recipe: {epochs: 9}}]"
    )
    assert values(transfer(study, "cifar10", "AT").recipe) == (
        128,
        0.3,
        "steps",
        (50, 75),
        100,
        5e-4,
        0.9,
    )
    assert values(transfer(study, "cifar10", "ST").recipe)[1] == 0.1
    assert values(transfer(study, "svhn", "AT").recipe)[1:5] == (
        0.01,
        "cosine",
        (),
        9,
    )  # after the preset's own


def test_parsing_does_not_change_the_presets():
    before = big("as_paper")
    big("as_paper", transfer="{AT: {lr: 0.3}}", overrides="[{recipe: {epochs: 9, milestones: []}}]")
    assert big("as_paper") == before


@pytest.mark.parametrize("name", ["as_paper", "as_code"])
def test_every_value_of_a_preset_says_where_it_comes_from(name):
    lines = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if re.search(r"[\w_]: [^#]", line) and line[0] != "#"]
    selectors = r" *(- )?(dataset|regime): "
    assert len(values) > 50
    assert all(" # " in line or re.match(selectors, line) for line in values)
