"""The browsing page in a real browser, under Voila and in JupyterLab.

What is shown is what the records say.
"""

import statistics
import time

import pandas as pd
import pytest
from conftest import FIRST, wait_for
from generate import records_of
from test_widgets import GRID, hide

from dwlt_lib.analysis import double_win, mask_patterns, noninferiority
from dwlt_lib.config.specs import ladder
from dwlt_lib.pruning.tickets import read_mask
from dwlt_lib.records import store

pytestmark = pytest.mark.browser
PLOT = "document.querySelector('.js-plotly-plot')"


def moved_to(page, r):
    """Waits until line, verdict and masks are those of `r` rounds."""
    level = f"at {100 * ladder(r):.1f} %"
    page.wait_for_function(
        f"() => {PLOT}.layout.shapes[0].x0 == {r} && ['verdict', 'masks'].every(card => document"
        f".querySelector(`[data-card=${{card}}] h4`).innerText.includes('{level}'))",
        polling=5,
    )


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """Generated records of the toy study in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DWLT_OUTPUTS", str(tmp_path_factory.mktemp("browse")))
        records_of(toy(grid=GRID))
        other = {"transfer": {"AT": {"lr": 0.02}}, "grid": GRID[:1]}
        records_of(toy(name="toy_again", **other))
        yield store.outputs()


def hover_over_a_dot(page):
    """The figure may be drawn anew meanwhile: then once more."""
    from playwright.sync_api import Error

    for _ in range(8):
        try:
            dot = page.locator(".js-plotly-plot:visible .scatterlayer .point").first
            dot.scroll_into_view_if_needed()
            where = dot.bounding_box()
            page.mouse.move(where["x"] + where["width"] / 2, where["y"] + where["height"] / 2)
            page.wait_for_selector(".hoverlayer .hovertext", state="attached", timeout=5000)
            return
        except (Error, TypeError):  # TypeError: it has no box any more
            page.wait_for_timeout(500)
            page.mouse.move(1, 1)
    raise AssertionError("no dot says what it is")


def click_a_dot(page):
    """As a reader does: again if nothing came of it, the figure being drawn in that instant."""
    for _ in range(6):
        hover_over_a_dot(page)
        page.wait_for_timeout(300)  # no hand is faster; a click in the hover's own instant is lost
        page.mouse.down()
        page.mouse.up()
        for _ in range(40):
            if page.locator("[data-record]").count():
                return
            page.wait_for_timeout(250)
        page.mouse.move(1, 1)
    raise AssertionError("a click on a dot opens no record")


def drive(page, tmp_path):
    """Everything that a reader does, on a page that is open."""
    table = store.table("transfer", study="toy")
    whole = table[table["fraction"] == 1]
    judged = noninferiority.noninferiority(whole, store.outcomes_of(whole))
    masks = store.table("mask", study="toy")
    wait_for(page, "[data-card=masks] [data-zero]")
    wait_for(page, ".js-plotly-plot .scatterlayer .trace", state="attached")
    handle = page.locator(".noUi-handle").first
    handle.focus()
    for r, press in ((10, "ArrowRight"), (6, "ArrowLeft"), (2, "ArrowLeft")):
        for _ in range(4):
            handle.press(press)
        moved_to(page, r)
        cells = page.locator("[data-card=verdict] [data-status]").all()
        statuses = [cell.get_attribute("data-status") for cell in cells]
        here = judged[judged["rounds"] == r][[f"{c}_status" for c in double_win.CRITERIA]]
        assert sorted(statuses) == sorted(here.to_numpy().ravel())
        zeros = [
            float(cell.get_attribute("data-zero"))
            for cell in page.locator("[data-card=masks] [data-zero]").all()
        ]
        ids = masks[(masks["rounds"] == r) & (masks["method"] == "IMP-ST")].set_index(
            "pretraining"
        )["id"]
        found = [mask_patterns.zero_kernels(read_mask(ids[p])) for p in ("STD", "FAT", "AT")]
        assert zeros == [
            z for f in found for z in f[f["kernel"] > 1].groupby("block", sort=False)["zero"].sum()
        ]
    click_a_dot(page)
    assert page.locator("[data-record]").first.get_attribute("data-record") in set(whole["id"])
    page.get_by_role("button", name="close").click()
    page.get_by_role("tab", name="Results").click()
    table = whole[whole["regime"] == "AT"]  # first, what can be compared
    wait_for(page, f"[data-rows='{len(table)}']")
    with page.expect_download() as download:
        page.get_by_text("Export CSV").click()
    download.value.save_as(tmp_path / "results.csv")
    assert download.value.suggested_filename == "toy_transfer.csv"
    exported = pd.read_csv(tmp_path / "results.csv")
    for column in ("id", "SA", "RA"):
        assert exported[column].tolist() == table[column].tolist()
    head = page.locator(".dt-scroll-head th", has_text="pretraining")
    head.locator(".dtcc-button_dropdown").click()
    page.locator(".dtcc-list-buttons").get_by_role("button", name="FAT", exact=True).click()
    page.keyboard.press("Escape")
    page.get_by_role("cell", name="FAT", exact=True).first.click()
    wait_for(page, "[data-record]")
    id = page.locator("[data-record]").first.get_attribute("data-record")
    assert id in set(table["id"][table["pretraining"] == "FAT"])
    assert "recipe.epochs: 3" in page.locator("[data-card=record] pre").first.text_content()
    page.get_by_role("button", name="parallel coordinates").click()
    wait_for(page, ".parcoords .axis")
    page.get_by_role("tab", name="Landscapes").click()
    wait_for(page, "[data-card=landscapes] img")
    page.get_by_role("tab", name="Images").click()
    wait_for(page, "[data-card=images] img")
    page.get_by_role("tab", name="Compare").click()
    wait_for(page, "[data-setting='transfer.AT.lr']")
    page.get_by_role("tab", name="Leaderboard").click()
    page.get_by_role("cell", name="toy_again", exact=True).first.wait_for()
    page.get_by_role("tab", name="Sparsity").click()


def test_voila_shows_what_the_records_say(made, serve, page, tmp_path):
    url, _ = serve("browse", "--study", "toy", "--no-browser", "--port", 0, DWLT_OUTPUTS=str(made))
    for width, height in ((1280, 1500), (400, 2400)):
        found, asked = page(width, height), []
        found.on("request", lambda request, asked=asked: asked.append(request.url))
        found.goto(url)
        if width > 1000:
            drive(found, tmp_path)
        wait_for(found, "[data-card=masks] [data-zero]")
        wait_for(found, ".js-plotly-plot .scatterlayer .trace", state="attached")
        found.screenshot(path=tmp_path / f"voila_{width}.png")
        sideways = "document.documentElement.scrollWidth <= window.innerWidth + 1"
        assert found.evaluate(sideways), f"the page is wider than {width} px"
        own = (url[: url.index("?")], "data:", "blob:")
        assert not [where for where in asked if not where.startswith(own)], (
            "the page asks other hosts"
        )
        assert not found.problems


def test_voila_shows_records_that_appear_and_does_not_move_its_reader(
    toy, serve, page, tmp_path, monkeypatch
):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    records_of(toy(grid=GRID))
    table = store.table("transfer", study="toy")
    appear = hide(table[table["rounds"] == 10]["id"])
    url, _ = serve(
        "browse", "--study", "toy", "--no-browser", "--port", 0, DWLT_OUTPUTS=str(tmp_path)
    )
    found = page(1280, 900)
    found.goto(url)
    wait_for(found, ".js-plotly-plot .scatterlayer .trace", state="attached")
    wait_for(found, "[data-card=masks] [data-zero]")
    found.get_by_text("nobody is making the others").wait_for()
    found.locator(".legendtoggle").first.click()
    hidden = f"{PLOT}.data.filter(trace => trace.visible == 'legendonly').length"
    found.wait_for_function(f"() => {hidden} > 0")
    before = found.evaluate(hidden)
    for _ in range(4):
        found.locator(".noUi-handle").first.press("ArrowLeft")
    moved_to(found, 2)
    found.evaluate("document.scrollingElement.scrollTo(0, 300)")
    found.wait_for_timeout(500)
    scrolled = found.evaluate("document.scrollingElement.scrollTop")
    appear()
    wait_for(found, f"[data-there='{len(store.table(study='toy'))}']", state="attached")
    count = (table["fraction"] == 1).sum()
    found.wait_for_function(
        f"() => new Set([...{PLOT}.data].flatMap(t => (t.customdata || []).map(c => c[0]))).size"
        f" == {count}"
    )
    moved_to(found, 2)
    assert found.evaluate(hidden) == before
    assert found.evaluate("document.scrollingElement.scrollTop") == scrolled
    assert not found.problems


def test_jupyterlab_shows_what_the_records_say(made, serve, page, tmp_path):
    url, _ = serve("lab", "--no-browser", "--port", 0, DWLT_OUTPUTS=str(made))
    found = page(1280, 1500)
    found.goto(url.replace("00_tour", "20_browse"))
    cell = ".jp-Notebook .jp-CodeCell"  # out of sight, JupyterLab hides it
    wait_for(found, cell, state="attached")
    found.get_by_text("(ipykernel) | Idle").wait_for(**FIRST)
    found.get_by_role("menuitem", name="Run", exact=True).click()
    found.get_by_text("Run All Cells", exact=True).click()
    drive(found, tmp_path)
    found.screenshot(path=tmp_path / "lab_1280.png")
    assert not [
        line for line in found.problems if "/lsp/" not in line
    ]  # JupyterLab asks for a language server


def test_a_thousand_records_open_and_move_quickly(toy, serve, page, tmp_path, monkeypatch, capsys):
    """Reports the seconds to the first paint and of a slider's move.

    Only that they are there is asserted.
    """
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    grid = [GRID[0] | {"rounds": list(range(1, 17)), "seeds": list(range(5))}]
    study = toy(grid=grid)
    records_of(study)
    assert len(store.table(study="toy")) >= 1000
    url, _ = serve(
        "browse", "--study", "toy", "--no-browser", "--port", 0, DWLT_OUTPUTS=str(tmp_path)
    )
    found, began = page(), time.perf_counter()
    found.goto(url)
    wait_for(found, ".js-plotly-plot .scatterlayer .trace", state="attached")
    painted, moves = time.perf_counter() - began, []
    wait_for(found, "[data-card=masks] [data-zero]")
    handle, r = found.locator(".noUi-handle").first, 6
    handle.focus()
    for press, step in [("ArrowRight", 1)] * 10 + [("ArrowLeft", -1)] * 10:
        began, r = time.perf_counter(), r + step
        handle.press(press)
        moved_to(found, r)
        moves.append(time.perf_counter() - began)
    with capsys.disabled():
        print(
            f"\n1,000 records: first paint {painted:.2f} s, slider {statistics.median(moves):.3f} s"
            " (median of 20)"
        )
