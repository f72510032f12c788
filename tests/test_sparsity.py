"""A study that prunes half of the weights a round says so.

50, 75 and 87.5 %, wherever a sparsity stands.
"""

import re

import matplotlib as mpl
import pytest
from generate import records_of
from test_plots import texts

from dwlt_lib import (
    live,
    mask_cards,
    planes,
    play,
    plots,
    records,
    report,
    runner,
    specs,
    structure,
    studies,
    tab_pictures,
    widgets,
    winning,
    words,
)

OTHER = re.compile(r"\b(20\.0|36\.0|48\.8) %")  # what the paper's ladder would say
GRID = [
    {
        "pretraining": ["STD", "FAT", "AT"],
        "method": ["IMP-ST"],
        "dataset": ["stripes"],
        "fraction": [1.0, 0.5],
        "rounds": [1, 2, 3],
        "seeds": [0, 1],
    },
    {
        "pretraining": ["AT"],
        "method": ["RP"],
        "dataset": ["stripes"],
        "rounds": [1, 2, 3],
        "seeds": [0, 1],
    },
]
ATTACKS = [
    {
        "pretraining": ["AT"],
        "method": ["IMP-ST"],
        "dataset": ["stripes"],
        "rounds": [0, 1, 2, 3],
        "seeds": [0],
    }
]


@pytest.fixture
def halves(toy, outputs):
    """A study of prune_fraction 0.5 with invented numbers; accuracies that win down to 75 %."""
    landscapes = [
        {
            "pretraining": ["STD", "AT"],
            "method": ["IMP-ST"],
            "dataset": ["stripes"],
            "rounds": [1, 2, 3],
            "seeds": [0],
        }
    ]
    study = toy(grid=GRID, prune_fraction=0.5, transfer_attacks=ATTACKS, landscapes=landscapes)
    records_of(study)
    return study


def says(text, *wanted):
    assert not OTHER.search(text), OTHER.search(text)
    assert not wanted or any(value in text for value in wanted), (wanted, text)


def test_rows_of_every_kind_say_the_sparsity_that_their_study_asks_for(halves):
    for kind in ("mask", "transfer", "surface", "trajectory", "attack"):
        table = records.table(kind, study="toy")
        assert (table["sparsity"] == 1 - 0.5 ** table["rounds"]).all(), kind


def test_labels_of_records_and_jobs_say_it(halves):
    labels = [
        specs.label(spec) for spec in studies.plan(halves).values() if spec.kind != "pretraining"
    ]
    for label in labels:
        says(label, " 0.0 %", "50.0 %", "75.0 %", "87.5 %")
    for job in studies.jobs(halves):
        if job.rounds:
            says(runner._job_label(job, halves), "at 0.0", "at 50.0")


def test_the_verdict_says_it(halves):
    table = records.table("transfer", study="toy")
    table.loc[:, ["SA", "RA"]] = [0.9, 0.6]
    table.loc[table["rounds"] == 3, "SA"] = 0.1
    found = winning.verdict(table, rule="eq3")
    assert (found["extreme_rounds"] == 2).all() and (found["extreme_sparsity"] == 0.75).all()
    assert (winning.alternatives(table).filter(like="eq3") == 0.75).all(axis=None)


def test_every_figure_and_its_sentence_say_it(halves):
    table, params = records.table("transfer", study="toy"), records.study("toy")["params"]
    masks = records.table("mask", study="toy")
    masks = masks[masks["method"] == "IMP-ST"]
    pairs = structure.similarity_table(masks, records.mask)
    kernels = structure.zero_kernel_table(masks, records.mask)
    attacks = records.table("attack", study="toy")
    drawn = [
        plots.existence(table),
        plots.methods(table),
        plots.data_limited(table),
        plots.more_tasks(table),
        plots.similarity(pairs),
        plots.zero_kernels(kernels),
        plots.transfer_attack_curve(attacks),
    ]
    for fig in drawn:
        fig.draw_without_rendering()
        ticks = [label.get_text() for label in fig.axes[-1].get_xticklabels()]
        assert {"50.0", "75.0", "87.5"} <= set(ticks), ticks
        says(" ".join(texts(fig)))
        assert not {"20.0", "36.0", "48.8"} & set(ticks)
    assert "50.0 to 87.5 %" in " ".join(texts(plots.paradigm(params)))
    assert "87.5" in plots.transfer_attack(attacks).to_html()
    for said in (words.existence(table), words.methods(table), words.headline(table)):
        says(said)
    says(words.data_limited(table), "50.0 %", "75.0 %", "87.5 %", " at 0.0 %")
    for said in (words.overlap(pairs), words.zeros(kernels), words.blocks(kernels)):
        assert said.startswith("At 87.5 % sparsity")
    assert "3 levels of sparsity (50.0 to 87.5 %)" in words.paradigm(params)
    surfaces = records.table("surface", study="toy")
    sparse = surfaces[surfaces["rounds"] == 3]
    panels = planes.side_by_side(sparse, records.read, columns=2)
    assert all("87.5 %" in panel["title"] for panel in panels)
    says(" ".join(texts(plots.surfaces_3d(panels))), "87.5 %")


def test_figure_1_draws_the_share_that_is_left(halves):
    bars = [
        patch
        for patch in plots.paradigm(records.study("toy")["params"]).findobj(mpl.patches.Rectangle)
        if patch.get_width() == 0.2 and patch.get_fill()
    ]
    assert [bar.get_height() / 1.5 for bar in bars] == pytest.approx(
        [0.5**r for r in (0, 0.6, 1.2, 1.8, 2.4, 3)]
    )


def test_the_browser_the_tours_sliders_and_the_report_say_it(halves):
    page = widgets.build("toy")
    page.finish()
    tab, wanted = page.parts.sparsity, ["0.0 %", "50.0 %", "75.0 %", "87.5 %"]
    assert [label for label, _ in tab.slider.options] == wanted
    assert list(tab.figure.widget.layout.xaxis.ticktext) == [label[:-2] for label in wanted]
    tab.slider.value = 3
    for html in (tab.verdict.value, tab.masks_html.value):
        assert "at 87.5 % sparsity" in html
    table = records.table("transfer", study="toy")
    traces, layout = live.scatter(table, "rounds", "RA", "pretraining")
    assert layout["xaxis"]["ticktext"] == [label[:-2] for label in wanted]
    dots = [
        text
        for trace in live.curves(table[table["fraction"] == 1], winning.criteria(table), 1)[0]
        for text in trace.get("text", ())
    ]
    says(" ".join(dots), "87.5 %")
    assert [label for label, _ in page.parts.results.filters["rounds"].options] == [
        f"{r} ({label})" for r, label in enumerate(wanted)
    ]
    assert [label for label, _ in page.parts.images.level.options] == wanted[1:]
    for row in records.table("surface", study="toy").to_dict("records"):
        says(tab_pictures._ticket(row), *wanted)
    assert list(play._levels(winning.sparsities(table))) == wanted
    assert list(play._levels(play._ladder(halves)))[:4] == wanted
    assert "at 75.0 % sparsity" in mask_cards.masks_at({}, "RP", 2, 0.75)
    text = report.build("toy").read_text()
    assert "50.0, 75.0, 87.5" in text
    says(re.sub(r"(?s)The paper's own.*?</table>|<details>.*?</details>", "", text))
