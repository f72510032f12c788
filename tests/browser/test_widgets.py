"""Theorems on the browser without a browser: what its controls show is what the records say."""

import base64
import io
import platform
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from generate import records_of

from dwlt_lib.analysis import double_win, mask_patterns, noninferiority, statistics
from dwlt_lib.browser import (
    app,
    curves,
    landscapes_tab,
    markup,
    mask_markup,
    results_tab,
)
from dwlt_lib.config import planning
from dwlt_lib.config.specs import label, record_id
from dwlt_lib.pruning.tickets import read_mask
from dwlt_lib.records import failures, leases, store

GRID = [
    {
        "pretraining": ["STD", "FAT", "AT"],
        "method": ["IMP-ST"],
        "dataset": ["stripes"],
        "fraction": [1.0, 0.5],
        "rounds": [2, 6, 10],
        "seeds": [0, 1],
    },
    {
        "pretraining": ["AT"],
        "method": ["RP"],
        "dataset": ["stripes"],
        "rounds": [2, 6],
        "seeds": [0, 1],
    },
]


ATTACKED = [{**GRID[1], "method": ["IMP-ST"], "rounds": [0, 2]}]


@pytest.fixture
def study(toy, outputs):
    return toy(grid=GRID, robustness=ATTACKED)


@pytest.fixture
def page(study):
    records_of(study)
    found = app.Browser("toy")
    found.sparsity.complete()
    return found


def numbers(html, attribute):
    return [float(value) for value in re.findall(rf'{attribute}="([^"]+)"', html)]


def test_the_slider_moves_line_verdict_and_kernel_maps_to_what_the_records_say(page):
    tab = page.sparsity
    table = store.table("transfer", study="toy")
    whole = table[table["fraction"] == 1]
    judged = noninferiority.noninferiority(whole, store.outcomes_of(whole))
    for r in (2, 10, 6):
        tab.slider.value = r
        assert tab.figure.widget.layout.shapes[0].x0 == r
        here = judged[judged["rounds"] == r]
        said = re.findall(r'data-status="([\w ]+)"', tab.verdict.value)
        assert sorted(said) == sorted(
            here[[f"{c}_status" for c in double_win.CRITERIA]].to_numpy().ravel()
        )
        wins = (here["status"] == "matches").sum()
        assert f"{wins} of {len(here)} tickets" in tab.verdict.value
        masks = store.table("mask", study="toy")
        masks = masks[(masks["rounds"] == r) & (masks["method"] == "IMP-ST")].set_index(
            "pretraining"
        )["id"]
        zeros = [mask_patterns.zero_kernels(read_mask(masks[p])) for p in ("STD", "FAT", "AT")]
        zeros = [
            z
            for found in zeros
            for z in found[found["kernel"] > 1].groupby("block", sort=False)["zero"].sum()
        ]
        assert numbers(tab.masks.value, "data-zero") == zeros
        found = [
            mask_patterns.relative_similarity(read_mask(masks[p]), read_mask(masks[q]))
            for p, q in (("STD", "FAT"), ("STD", "AT"), ("FAT", "AT"))
        ]
        assert numbers(tab.masks.value, "data-similarity") == pytest.approx(found, abs=1e-6)
    tab.slider.value = 0
    assert (
        "what every ticket is judged against" in tab.verdict.value
        and "nothing is pruned" in tab.masks.value
    )


def test_lines_go_through_the_means_of_the_records(page):
    table = store.table("transfer", study="toy")
    means = statistics.spread(table[table["fraction"] == 1])
    lines = [line for line in page.sparsity.figure.widget.data if line.mode == "lines+markers"]
    assert len(lines) == 12  # three criteria, four tickets
    drawn = iter(lines)
    for regime, metric in double_win.CRITERIA.values():
        for p, m in (("STD", "IMP-ST"), ("FAT", "IMP-ST"), ("AT", "IMP-ST"), ("AT", "RP")):
            own = means[(means["pretraining"] == p) & (means["regime"] == regime)]
            own = own[(own["method"] == m) | (own["rounds"] == 0)].sort_values("rounds")
            line = next(drawn)
            assert line.name == f"θ<sub>{p}</sub>, {m}" and list(line.x) == list(own["rounds"])
            assert list(line.y) == pytest.approx(list(100 * own[metric]))


def test_a_dot_is_a_record_and_opens_it(page):
    ids = {}
    for trace in page.sparsity.figure.widget.data:
        if trace.customdata is not None:
            for (id, _), y in zip(trace.customdata, trace.y, strict=True):
                ids.setdefault(id, []).append(y)
    table = store.table("transfer", study="toy").set_index("id")
    assert set(ids) == set(table.index[table["fraction"] == 1])
    for id, shown in ids.items():
        assert {round(y, 9) for y in shown} <= {
            round(100 * table.loc[id, metric], 9) for metric in ("SA", "RA")
        }
    id = next(iter(ids))
    page.show_record(id)
    card = page.record.children[0].value
    assert (
        f'data-record="{id}"' in card
        and "recipe.epochs: 3" in card
        and 'alt="training curve"' in card
    )
    up = [
        button
        for button in page.record.children[1].children
        if button.description.startswith("builds on")
    ]
    assert [button.tooltip for button in up] == store.read(id).upstream
    up[0].click()
    assert store.read(id).upstream[0] in page.record.children[0].value


def test_the_reading_of_the_rule_changes_the_verdict_as_the_library_does(page):
    tab, table = page.sparsity, store.table("transfer", study="toy")
    for rule in ("one_std", "eq3"):
        tab.rule.value = rule
        found = double_win.criteria(table[table["fraction"] == 1], rule)
        found = found[found["rounds"] == tab.slider.value][
            [f"{c}_status" for c in double_win.CRITERIA]
        ]
        assert sorted(re.findall(r'data-status="(\w+)"', tab.verdict.value)) == sorted(
            found.to_numpy().ravel()
        )
    tab.data.value = ("stripes", 0.5)
    assert "θ<sub>AT</sub>, RP" not in tab.verdict.value


def exported(tab):
    data = re.search(r"base64,([^\"]+)", tab.count.value)[1]
    return pd.read_csv(io.BytesIO(base64.b64decode(data)))


def test_the_table_and_its_csv_are_the_records_and_a_row_opens_its_own(page):
    page.tabs.selected_index = 1
    tab, table = page.results, store.table("transfer", study="toy")
    like = table[(table["fraction"] == 1) & (table["regime"] == "AT")]
    assert exported(tab)["id"].tolist() == like["id"].tolist()
    tab.data.value = tab.regime.value = ""
    assert exported(tab)["SA"].tolist() == table["SA"].tolist()
    assert f"{len(table)} rows" in tab.count.value and len(tab.grid.df) == len(table)
    assert tab.grid.df["RA (%)"].tolist() == (100 * table["RA"]).round(2).tolist()
    tab.grid.selected_rows = [1]
    assert f'data-record="{table["id"].iloc[1]}"' in page.record.children[0].value
    for kind in ("mask", "surface", "trajectory", "attack", "robustness", "pretraining"):
        tab.kind.value = kind
        tab.data.value = tab.regime.value = ""
        assert exported(tab)["id"].tolist() == store.table(kind, study="toy")["id"].tolist()
    tab.kind.value = "robustness"
    assert set(tab.grid.df["PGD-50x10 (%)"]) == {65.0}


def test_landscapes_and_images_are_drawn_from_their_records(page):
    page.tabs.selected_index = 2
    tab = page.landscapes
    for look in ("contours", "3-D", "trajectories"):
        tab.look.value = look
        ids = [id for _, id in tab.chosen.options]
        assert sorted(ids) == sorted(store.table(landscapes_tab.LOOKS[look], study="toy")["id"])
        tab.chosen.value = ids[:2]
        assert "<img" in tab.picture.value, tab.picture.value
    page.tabs.selected_index = 3
    tab = page.images
    arrays = store.read(store.table("attack", study="toy")["id"].iloc[0]).arrays()
    assert [int(i) for i in re.findall(r"truth: <b>(\d+)", tab.picture.value)] == arrays[
        "label"
    ].tolist()
    said = [int(i) for i in re.findall(r"attacked: <b>(\d+)", tab.picture.value)]
    ids = store.table("attack", study="toy").set_index("rounds")["id"]
    both = [store.read(ids[r]).arrays()["own"] for r in (0, 2)]
    assert said == np.stack(both, 1).ravel().tolist()
    tab.source.value = "unseen"
    assert [int(i) for i in re.findall(r"attacked: <b>(\d+)", tab.picture.value)] != said


def test_what_is_broken_or_missing_is_said_and_the_rest_is_shown(study):
    records_of(study)
    table = store.table(study="toy")
    transfers = table[
        (table["kind"] == "transfer") & (table["rounds"] == 6) & (table["fraction"] == 1)
    ]
    half = store.path_of("transfer", transfers["id"].iloc[0]) / "record.json"
    half.write_bytes(half.read_bytes()[:300])
    masks = table[
        (table["kind"] == "mask") & (table["rounds"] == 6) & (table["method"] == "IMP-ST")
    ]
    file = store.path_of("mask", masks["id"].iloc[0]) / "mask.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    surface = (
        store.path_of("surface", table[table["kind"] == "surface"]["id"].iloc[0])
        / "arrays.safetensors"
    )
    surface.unlink()
    page = app.Browser("toy")
    page.sparsity.complete()
    page.landscapes.chosen.value = [id for _, id in page.landscapes.chosen.options]
    for index in (1, 2, 3):
        page.tabs.selected_index = index
    assert (
        transfers["id"].iloc[0] in page.problems.value and "cannot be read" in page.problems.value
    )
    page.results.data.value = page.results.regime.value = ""
    assert len(exported(page.results)) == (table["kind"] == "transfer").sum() - 1
    assert 'title="unknown"' in page.sparsity.verdict.value  # a replicate is missing at this level
    assert "cannot be read" in page.sparsity.masks.value
    page.sparsity.slider.value = 10
    assert "Similarity" in page.sparsity.masks.value
    assert (
        "cannot be read" in page.landscapes.picture.value
        and "<img" in page.landscapes.picture.value
    )


def test_a_study_without_records_and_a_folder_without_studies_say_what_to_do(study, monkeypatch):
    store.write_study(study)
    page = app.Browser("toy")
    page.sparsity.complete()
    for index in (1, 2, 3, 0):
        page.tabs.selected_index = index
    assert 'data-there="0"' in page.progress.value
    assert "dwlt run params/toy.yaml" in page.progress.value
    assert "nothing to judge" in page.sparsity.verdict.value
    assert "no transfers yet" in str(page.sparsity.figure.widget.layout.title.text)
    assert "nowhere" in app.Browser("nowhere").problems.value
    (store.study_dir("toy") / "study.json").write_text('{"name": "to')
    assert "cannot be read" in app.Browser("toy").problems.value
    monkeypatch.setattr(store, "reference_files", list)
    (store.study_dir("toy") / "study.json").unlink()
    empty = app.Browser()
    empty.sparsity.complete()
    assert "run make tour" in empty.problems.value


def test_parallel_coordinates_have_a_line_per_record(page):
    page.tabs.selected_index = 1
    tab, table = page.results, store.table("transfer", study="toy")
    tab.view.value = results_tab.LINES
    own = table[(table["fraction"] == 1) & (table["regime"] == "AT")]
    (lines,) = tab._lines.widget.data
    axes = {axis.label: axis for axis in lines.dimensions}
    assert list(axes["RA (%)"]["values"]) == (100 * own["RA"]).round(2).tolist()
    words = axes["pretraining"].ticktext
    assert [words[i] for i in axes["pretraining"]["values"]] == own["pretraining"].tolist()
    assert "regime" not in axes  # the same for all


def test_studies_are_laid_over_each_other_and_their_settings_beside(study, toy):
    records_of(study)
    other = toy(name="other", transfer={"AT": {"lr": 0.02}}, grid=GRID[:1])
    records_of(other)
    page = app.Browser("toy")
    page.tabs.selected_index = 4
    tab = page.compare
    assert tab.others.value == ("other",) and [m for m in tab.method.options] == ["IMP-ST"]
    tab.shown.value = "AT_RA"
    assert len(tab.figure.widget.data) == 6  # two studies, three pre-trainings
    for trace in tab.figure.widget.data:
        pretraining, name = trace.legendgroup.split()
        means = statistics.spread(store.table("transfer", study=name))
        own = means[(means["pretraining"] == pretraining) & (means["regime"] == "AT")]
        own = own[(own["fraction"] == 1) & own["method"].isin(["IMP-ST", "dense"])]
        wanted = own.sort_values("rounds")["RA"].to_numpy()
        assert list(trace.y) == pytest.approx(list(100 * wanted))
    found = store.differences("toy", "other").T
    assert found["transfer.AT.lr"]["other"] == "0.02" != found["transfer.AT.lr"]["toy"]
    assert 'data-setting="transfer.AT.lr"' in tab.says.value
    tab.shown.value = "loss"
    for trace in tab.figure.widget.data:
        record = store.read(trace.customdata[0][0])
        if record.spec["regime"] == "AT":
            assert (record.spec["recipe"]["lr"] == 0.02) == ("other" in trace.name)
        assert list(trace.y) == [epoch["loss"] for epoch in record.history]


def test_the_leaderboard_has_what_is_certified_of_every_curve(study):
    records_of(study)
    page = app.Browser("toy")
    page.tabs.selected_index = 5
    shown = page.leaderboard.grid.df
    shown = shown[shown["study"] == "toy"]  # beside the committed ones
    table = store.table("transfer", study="toy")
    levels = noninferiority.noninferiority(table, store.outcomes_of(table))
    curves_there = noninferiority.certified(levels)
    assert len(shown) == len(curves_there)
    assert sorted(shown["at least (%)"]) == sorted(
        (100 * curves_there["at_least_sparsity"]).round(2)
    )
    strong = store.table("robustness", study="toy")
    worst = {(100 * strong["worst"]).round(2).iloc[0]}
    assert set(shown["strong"]) <= worst | {""}


def dots_of(widget):
    return {id for t in widget.data if t.customdata is not None for id, _ in t.customdata}


def hide(ids):
    """Takes records away as if they were still to be made; a function that brings them back."""
    paths = [path for id in ids for path in store.outputs().glob(f"records/*/{id}")]
    for path in paths:
        path.rename(path.with_name(f".{path.name}"))
    return lambda: [path.with_name(f".{path.name}").rename(path) for path in paths]


def test_what_appears_while_the_page_is_open_is_shown_and_nothing_else_moves(study):
    records_of(study)
    table = store.table("transfer", study="toy")
    late = table[(table["rounds"] == 10) & (table["fraction"] == 1)]["id"]
    appear = hide(late)
    page = app.Browser("toy")
    page.tabs.selected_index = 1
    page.results.data.value = page.results.regime.value = ""
    page.results.grid.selected_rows = [1]
    page.tabs.selected_index = 0
    tab, opened = page.sparsity, page.record.children
    tab.slider.value, tab.rule.value = 2, "eq3"
    group, before = tab.figure.widget.data[0].legendgroup, tab.figure.widget
    dots = dots_of(before)
    for trace in before.select_traces({"legendgroup": group}):  # as a click in the legend does
        trace.visible = "legendonly"
    page.look()
    assert dots_of(before) == dots  # nothing is new
    appear()
    page.look()
    assert len(tab.transfers) == (table["fraction"] == 1).sum()
    assert tab.figure.widget is before  # it moves, and is not drawn anew
    assert dots_of(before) == dots | set(late)
    hidden = {t.legendgroup for t in tab.figure.widget.data if t.visible == "legendonly"}
    assert group in hidden and tab.slider.value == 2 and tab.rule.value == "eq3"
    assert tab.figure.widget.layout.shapes[0].x0 == 2 and page.record.children == opened
    page.tabs.selected_index = 1
    results = page.results
    assert len(results.grid.df) == len(table) - len(late)  # its reader is not disturbed
    assert f"{len(late)} new" in results.new.description
    results.new.click()
    assert len(results.grid.df) == len(table) and results.new.layout.display == "none"


def test_a_figure_stays_when_only_records_of_another_share_are_new(study):
    records_of(study)
    table = store.table("transfer", study="toy")
    appear = hide(table[(table["fraction"] == 0.5) & (table["rounds"] == 10)]["id"])
    page = app.Browser("toy")
    before = page.sparsity.figure.widget
    appear()
    page.look()
    assert page.sparsity.figure.widget is before
    assert len(page.sparsity.all_transfers) == len(table)


def test_a_reader_sees_who_makes_what_and_why_something_failed(study):
    records_of(study)
    specs = [spec for spec in planning.plan(study).values() if spec.kind == "transfer"][-3:]
    ids = [record_id(spec) for spec in specs]
    hide(ids)
    page = app.Browser("toy")
    assert "nobody is making" in page.progress.value and page.failed.value == ""
    failures.note("toy", specs[:1], "FloatingPointError: the loss is nan <b>")
    with leases.acquire(store.leases_root(), ids[1]):
        page.look()
        assert f"{label(specs[1])}: running on {platform.node()}" in page.progress.value
        assert "1 diverged" in page.failed.value and label(specs[0]) in page.failed.value
        assert "nan &lt;b&gt;" in page.failed.value
    failures.forget("toy", specs[:1])
    page.look()
    assert "nobody is making" in page.progress.value and page.failed.value == ""


def test_a_study_that_appears_is_offered_and_the_chosen_one_stays(study, toy):
    records_of(study)
    page = app.Browser("toy")
    store.write_study(toy(name="later"))
    page.look()
    assert "later" in dict(page.study.options).values() and page.study.value == "toy"


def test_names_and_messages_are_data_never_markup():
    evil = "<script>alert(1)</script>"
    found = SimpleNamespace(
        id=evil,
        kind=evil,
        path=evil,
        columns={"dataset": evil, "surrogate": evil},
        spec={"a": {evil: [evil]}},
        metrics={evil: 0.5},
        made={"code": evil},
        upstream=[],
    )
    levels = pd.DataFrame(
        [
            {"pretraining": evil, "method": evil, "rounds": 1, "double_win": "win"}
            | {"dataset": evil, "fraction": 1.0}
            | {
                f"{c}_{k}": v
                for c in double_win.CRITERIA
                for k, v in (
                    ("status", "win"),
                    ("mean", 0.5),
                    ("difference", 0.1),
                    ("at_chance", 0),
                )
            }
        ]
    )
    ends = pd.DataFrame([{"pretraining": evil, "method": evil, "extreme_sparsity": 0.2}])
    masks = {evil: {"layer1.0.conv1.weight": mask_patterns.torch.ones(4, 4, 3, 3)}}
    pages = [
        markup.record(found),
        markup.problem(evil),
        markup.verdict(levels, ends, 1, 0.2),
        mask_markup.masks_at(masks, evil, 2, 0.36),
        mask_markup.masks_at({}, evil, 2, 0.36),
        markup.card("landscapes", drawn="", alt=evil),
        markup.card(
            "compared",
            studies=[evil],
            certified={(evil, evil): {evil: evil}},
            settings={evil: {evil: evil}},
        ),
        markup.card("count", rows=1, file=evil, csv=""),
    ]
    assert all("&lt;script" in page and "<script" not in page for page in pages)


def test_dense_bands_reach_from_the_threshold_to_the_dense_mean(page):
    table = store.table("transfer", study="toy")
    table = table[table["fraction"] == 1]
    judged = double_win.criteria(table)
    bands = [trace for trace in curves.curves(table, judged, 6).data if trace.fill == "toself"]
    assert len(bands) == 9  # three criteria, three pre-trainings
    for p in ("STD", "FAT", "AT"):
        row = judged[judged["pretraining"] == p].iloc[0]
        band = next(band for band in bands if band.legendgroup == f"{p} IMP-ST")
        wanted = 100 * row["ST_SA_threshold"], 100 * row["ST_SA_dense"]
        assert (min(band.y), max(band.y)) == tuple(sorted(wanted))


def test_a_record_names_its_executed_notebook(page):
    id = store.table("transfer", study="toy")["id"].iloc[0]
    page.show_record(id)
    assert "is not kept here" in page.record.children[0].value
    notebook = store.study_dir("toy") / "notebooks" / "03_transfer-AT-0123.ipynb"
    notebook.parent.mkdir(parents=True)
    notebook.write_text(f'{{"ids": "{id}"}}')
    page.show_record(id)
    assert str(notebook) in page.record.children[0].value
