"""A study that prunes half of the weights a round says so.

50, 75 and 87.5 %, wherever a sparsity stands.
"""

import re

import matplotlib as mpl
import pandas as pd
import pytest
from figure_tables import texts
from generate import records_of

from dwlt_lib import report
from dwlt_lib.analysis import double_win, mask_patterns
from dwlt_lib.browser import app, controls, curves, mask_markup
from dwlt_lib.config import planning, specs
from dwlt_lib.plotting import figures, landscapes, study_overview
from dwlt_lib.pruning.tickets import read_mask
from dwlt_lib.records import store
from dwlt_lib.tour import interactive

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
        table = store.table(kind, study="toy")
        assert (table["sparsity"] == 1 - 0.5 ** table["rounds"]).all(), kind


def test_labels_of_records_say_it(halves):
    labels = [
        specs.label(spec) for spec in planning.plan(halves).values() if spec.kind != "pretraining"
    ]
    for label in labels:
        says(label, " 0.0 %", "50.0 %", "75.0 %", "87.5 %")


def test_the_verdict_says_it(halves):
    table = store.table("transfer", study="toy")
    table.loc[:, ["SA", "RA"]] = [0.9, 0.6]
    table.loc[table["rounds"] == 3, "SA"] = 0.1
    found = double_win.verdict(table, rule="eq3")
    assert (found["extreme_rounds"] == 2).all() and (found["extreme_sparsity"] == 0.75).all()
    assert (double_win.alternatives(table).filter(like="eq3") == 0.75).all(axis=None)


def test_every_figure_and_its_finding_say_it(halves):
    table, params = store.table("transfer", study="toy"), store.study("toy")["params"]
    masks = store.table("mask", study="toy")
    masks = masks[masks["method"] == "IMP-ST"]
    pairs = mask_patterns.similarity_table(masks, read_mask)
    kernels = mask_patterns.zero_kernel_table(masks, read_mask)
    attacks = store.table("attack", study="toy")
    drawn = [
        figures.existence(table),
        figures.methods(table),
        figures.data_limited(table),
        figures.more_tasks(pd.concat([table, table.assign(dataset="further")])),
        figures.similarity(pairs),
        figures.zero_kernels(kernels),
        figures.transfer_attack_curve(attacks),
    ]
    for fig in drawn:
        fig.draw_without_rendering()
        ticks = [label.get_text() for label in fig.axes[-1].get_xticklabels()]
        assert {"50.0", "75.0", "87.5"} <= set(ticks), ticks
        says(" ".join(texts(fig)))
        assert not {"20.0", "36.0", "48.8"} & set(ticks)
    assert "50.0 to 87.5 %" in " ".join(texts(study_overview.paradigm(params)))
    found = report.findings("toy")
    for figure in ("3", "4", "5", "A8 top", "7"):
        says(found.of_figure(figure))
    surfaces = store.table("surface", study="toy")
    sparse = surfaces[surfaces["rounds"] == 3]
    panels = landscapes.side_by_side(sparse, store.read, columns=2)
    assert all("87.5 %" in panel.title for panel in panels)
    says(" ".join(texts(landscapes.surfaces_3d(panels))), "87.5 %")


def test_figure_1_draws_the_share_that_is_left(halves):
    bars = [
        patch
        for patch in study_overview.paradigm(store.study("toy")["params"]).findobj(
            mpl.patches.Rectangle
        )
        if patch.get_width() == 0.2 and patch.get_fill()
    ]
    assert [bar.get_height() / 1.5 for bar in bars] == pytest.approx(
        [0.5**r for r in (0, 0.6, 1.2, 1.8, 2.4, 3)]
    )


def test_the_browser_the_tours_sliders_and_the_report_say_it(halves):
    page = app.Browser("toy")
    page.sparsity.complete()
    tab, wanted = page.sparsity, ["0.0 %", "50.0 %", "75.0 %", "87.5 %"]
    assert [label for label, _ in tab.slider.options] == wanted
    assert list(tab.figure.widget.layout.xaxis.ticktext) == [label[:-2] for label in wanted]
    tab.slider.value = 3
    for html in (tab.verdict.value, tab.masks.value):
        assert "at 87.5 % sparsity" in html
    table = store.table("transfer", study="toy")
    figure = curves.curves(table[table["fraction"] == 1], double_win.criteria(table), 1)
    dots = [text for trace in figure.data if trace.text is not None for text in trace.text]
    says(" ".join(dots), "87.5 %")
    for kind in ("attack", "surface"):
        for row in store.table(kind, study="toy").to_dict("records"):
            says(controls.ticket_name(row), *wanted)
    levels = interactive._sparsity_slider(halves).options
    assert [label for label, _ in levels][:4] == wanted
    assert "at 75.0 % sparsity" in mask_markup.masks_at({}, "RP", 2, 0.75)
    text = report.build("toy").read_text()
    says(re.sub(r"(?s)The paper's own.*?</table>|<details>.*?</details>", "", text))
