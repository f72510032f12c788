"""The article on small scale says nothing that the committed study of photographs does not."""

import re
from statistics import NormalDist

import pytest
import yaml
from typer.testing import CliRunner

from dwlt_lib.analysis import noninferiority, statistics
from dwlt_lib.cli.main import app
from dwlt_lib.records import store

STUDY = "params/photos_cpu.yaml"
ARTICLE = store.checkout() / "docs" / "explanation" / "small_scale.md"
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)")
ELSEWHERE = {  # decimals that are of other networks, with where they are printed
    "the paper's text, sections 4.1 and 5": {"89.26", "91.41", "0.79", "8.97", "8.36"},
    "the Adversarial Pruning Benchmark, CIFAR-10, ResNet-18 (arXiv 2409.01249)": {
        "45.40",
        "46.49",
        "83.38",
        "80.69",
    },
}


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """The committed study alone, whatever has been made here."""
    reference = tmp_path / "outputs" / "reference"
    reference.mkdir(parents=True)
    name = "photos_cpu.zip"
    (reference / name).symlink_to(store.checkout() / "outputs" / "reference" / name)
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    return store.table(study="photos_cpu")


def printed(*arguments):
    return CliRunner().invoke(app, [arguments[0], STUDY, *arguments[1:]]).stdout.strip()


@pytest.mark.parametrize(
    "arguments", [("results", "--means"), ("claims", "--markdown"), ("verdict", "--markdown")]
)
def test_the_article_and_readme_have_the_tables_that_the_commands_print(committed, arguments):
    lines = printed(*arguments).split("\n")
    if arguments[0] == "claims":
        lines = [line for line in lines if "cannot be told" not in line]
    assert "\n".join(lines) in ARTICLE.read_text(encoding="utf-8"), f"put there: {arguments}"
    if arguments[0] != "results":
        readme = (store.checkout() / "README.md").read_text(encoding="utf-8")
        assert "\n".join(lines) in readme, f"put there: {arguments}"


def test_every_decimal_of_its_prose_follows_from_the_records(committed):
    text = ARTICLE.read_text(encoding="utf-8")
    prose = "\n".join(line for line in text.split("\n") if not line.startswith("|"))
    known = set().union(*ELSEWHERE.values())
    for table in (("results", "--means"), ("claims", "--markdown"), ("verdict", "--markdown")):
        known |= set(NUMBER.findall(printed(*table)))
    source = committed[committed["kind"] == "pretraining"]
    known |= {f"{100 * value:.1f}" for value in source[["SA", "RA"]].to_numpy().ravel()}
    means = statistics.spread(committed[committed["kind"] == "transfer"])
    means = means.set_index(["pretraining", "rounds", "regime"])
    for metric in ("SA", "RA"):  # differences between networks of one sort, and within a curve
        values = 100 * means[metric]
        known |= {f"{abs(a - b):.1f}" for a in values for b in values}
    known |= {"0.15"}  # of the seeds that would be needed, tested below
    known |= {f"{100 * (1 - 0.8**rounds):.1f}" for rounds in range(20)}
    strange = [number for number in NUMBER.findall(prose) if number not in known]
    assert not strange


def test_seeds_that_would_separate_the_extremes_follow_from_the_scatter_of_seeds(committed):
    """n seeds of a level and n of dense: se^2 = 2 s^2 / n, and the bound is to clear the margin."""
    transfers = committed[committed["kind"] == "transfer"]
    levels = noninferiority.noninferiority(transfers, store.outcomes_of(transfers))
    levels = levels.set_index(["pretraining", "rounds"])
    parts = statistics.variance_components(transfers).set_index(["criterion", "source"])["sd"]
    text, sd = ARTICLE.read_text(encoding="utf-8"), parts["AT_SA", "training"]

    def needed(pretraining, alpha):
        level = levels.loc[(pretraining, 9)]
        away = level["AT_SA_difference"] + level["AT_SA_margin"]
        return 2 * (NormalDist().inv_cdf(1 - alpha) * sd / away) ** 2, away

    fat, away = needed("FAT", 0.05)
    std, beyond = needed("STD", 0.05 / 3)
    assert beyond < 0 < away
    assert (round(fat, -1), round(std, -1)) == (50, 10)
    assert "about fifty seeds of FAT and ten of STD" in text
    assert f"FAT's margin is {100 * away:.2f} points away" in text
    assert f"scatter by {100 * sd:.1f} points" in text


def test_its_counts_are_those_of_the_parameter_file(committed):
    settings = yaml.safe_load((store.checkout() / STUDY).read_text(encoding="utf-8"))
    text = ARTICLE.read_text(encoding="utf-8")
    (grid,) = settings["grid"]
    words = {3: "three", 5: "five", 6: "six"}
    assert f"to {words[len(grid['rounds'])]}\nlevels" in text
    assert f"{words[len(grid['seeds'])]} training seeds" in text
    assert f"dense with {words[len(grid['dense_seeds'])]}" in text
    assert grid["fraction"] == [0.01] and "1 % of CIFAR-10" in text
