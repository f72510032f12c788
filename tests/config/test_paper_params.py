"""The paper's own studies.

Every file parses, asks for the paper's grid, and shares its records with the others.
"""

import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from dwlt_lib.cli import main
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import columns
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store

FOLDER = store.checkout() / "params" / "paper"
FILES = sorted(FOLDER.rglob("*.yaml"))
FIGURES = [path.stem for path in FOLDER.glob("*.yaml")]
# kinds of records by hand. Transfers: levels x theta_p or methods x data sets x regimes x seeds,
# dense ones included
GRID = {
    "fig2": dict(pretraining=3, mask=3 * 6, transfer=3 * 2, surface=3 * 2, trajectory=3 * 2),
    "fig3": dict(pretraining=3, mask=4 * 19, transfer=(4 * 19 + 3) * 3 * 2 * 3),
    "fig4": dict(pretraining=1, mask=4 * 19, transfer=(4 * 19 + 1) * 3 * 2 * 3),
    "fig5": dict(pretraining=3, mask=3 * 19, transfer=3 * 20 * 3 * 3 * 2 * 3),
    "fig6": dict(pretraining=3, mask=3 * 6, transfer=3 * 3, surface=3 * 3, trajectory=3 * 3),
    "fig7": dict(pretraining=3, mask=3 * 16),
    "figA8": dict(pretraining=3, mask=3 * 19),
    "figA9": dict(
        pretraining=3, mask=3 * 6, transfer=3 * 3, surface=3 * 3 * 2, trajectory=3 * 3 * 2
    ),
    "figA10": dict(
        pretraining=3, mask=3 * 16, transfer=(60 + 3 * 2 * 2) * 3
    ),  # 60 sparse models, three seeds each
    "tableA2": dict(pretraining=2, mask=14, transfer=4 * 3, attack=4 * 3),
}


@pytest.fixture(scope="module")
def plans():
    """{file: its plan}, while no imported weights are here."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DWLT_DATA", "/nowhere")
    yield {path: plan(read_study(path)) for path in FILES}
    patch.undo()


def of(plans, stem, folder=FOLDER):
    return plans[folder / f"{stem}.yaml"]


def test_there_is_a_file_for_every_figure_and_table_of_the_paper():
    assert sorted(FIGURES) == sorted(GRID)
    assert {path.stem for path in FILES if path.parent != FOLDER} == set(FIGURES) - {
        "fig7",
        "figA8",
        "figA10",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_file_asks_for_the_papers_grid(path, plans):
    assert Counter(spec.kind for spec in plans[path].values()) == GRID[path.stem]
    study = read_study(path)
    assert study.name == f"paper_{path.stem.lower()}" + "_as_code" * (path.parent != FOLDER)
    assert (study.arch, study.source, set(study.weights)) == (
        "resnet50",
        "imagenet",
        {"STD", "FAT", "AT"},
    )
    assert study.preset == ("as_paper" if path.parent == FOLDER else "as_code")


def test_figures_share_what_they_have_in_common(plans):
    f = {stem: set(of(plans, stem)) for stem in GRID}

    def kinds(ids):
        return Counter(of(plans, "fig3")[id].kind for id in ids)

    assert kinds(f["fig3"] & f["fig4"]) == dict(
        pretraining=1, mask=2 * 19, transfer=(2 * 19 + 1) * 18
    )
    assert kinds(f["fig3"] & f["fig5"]) == dict(pretraining=3, mask=3 * 19, transfer=3 * 20 * 18)
    assert f["fig2"] < f["figA9"] and f["fig6"] < f["figA9"]
    assert f["fig7"] < f["figA8"] < f["fig3"]
    assert kinds(f["figA10"] & f["fig3"]) == dict(pretraining=3, mask=3 * 16)
    assert kinds(f["tableA2"] & f["fig3"]) == dict(
        pretraining=1, mask=14
    )  # its transfers keep their weights


def test_scripts_and_text_ask_for_the_same_tickets_and_share_masks_by_standard_retraining(plans):
    for stem in set(FIGURES) - {"fig7", "figA8", "figA10"}:
        text, code = of(plans, stem), of(plans, stem, FOLDER / "as_code")
        rows = [
            sorted(
                json.dumps({k: v for k, v in columns(spec).items() if k != "epochs"})
                for spec in one.values()
            )
            for one in (text, code)
        ]
        assert rows[0] == rows[1]
        for id, spec in text.items():
            if spec.kind == "mask":
                assert (id in code) == (spec.method != "IMP-AT")  # whose alpha differs


def test_all_is_seen_at_224_pixels_and_tickets_are_drawn_and_transferred_as_sections_3_and_a1_say(
    plans,
):
    for path, found in plans.items():
        for spec in found.values():
            row = getattr(getattr(spec, "transfer", spec), "data", None)
            assert row is None or (row.size, row.crop, row.augment[0]) == (
                224,
                0.875,
                "resized_crop",
            ), path
            if spec.kind == "mask" and spec.method.startswith("IMP"):
                assert spec.theta.data.name == "imagenet"
                assert (spec.retrain.epochs, spec.retrain.batch, spec.retrain.lr) == (
                    30,
                    2048,
                    5e-4,
                )
    for spec in of(plans, "fig5").values():
        if spec.kind == "transfer":
            how = spec.recipe
            assert (how.batch, how.weight_decay, how.momentum) == (128, 5e-4, 0.9)
            want = (80, 0.01, "cosine") if spec.data.name == "svhn" else (100, 0.1, "steps")
            assert (how.epochs, how.lr, how.schedule) == want  # whatever the fraction
            assert (how.attack.steps if how.attack else 0, spec.evaluation.steps) == (
                10 * (spec.regime == "AT"),
                20,
            )


def test_the_plan_of_the_whole_paper_is_told_by_given_rates(tmp_path, monkeypatch):
    """By a table of made-up rates: nothing is measured here."""
    monkeypatch.setenv("DWLT_DATA", str(tmp_path))
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    rates = tmp_path / "rates.json"
    row = {"variant": "ours, exact, fp32", "img/s": 1}
    rates.write_text(
        json.dumps({"tables": [{"task": "at", "network": "resnet50", "size": 224, "rows": [row]}]})
    )
    found = CliRunner().invoke(
        main.app, ["plan", *map(str, FOLDER.glob("*.yaml")), "--rates", str(rates)]
    )
    assert found.exit_code == 0, found.output
    for n in ("1 device", "8 devices", "64 devices"):
        assert f"wall hours on {n}:" in found.stdout
