"""The report in Chromium.

Offline, every figure visible, no request to any host, whole on a phone and on paper.
"""

import re
from itertools import product

import pytest
from conftest import CHROMIUM
from nbformat.v4 import new_output
from test_report import cell, figures_of, finished, write_notebook

from dwlt_lib import report
from dwlt_lib.records import store

sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]
VISIBLE = """[...document.images].map(image => {
    const box = image.getBoundingClientRect();
    return image.complete && image.naturalWidth > 0 && box.width > 100 && box.height > 50; })"""
ACCESSIBLE = {"runOnly": ["wcag2a", "wcag2aa", "best-practice"]}
PIVOT = (
    "<table><thead><tr><th></th><th>SA</th></tr></thead><tr><th>AT</th><td>0.9</td></tr></table>"
)
COMMITTED = store.checkout() / "outputs" / "reference" / "tour_full" / "report.html"
CUT = """[...document.querySelectorAll("table")].filter(table => {
    const room = table.closest(".scroll");
    return !room || room.scrollWidth > room.clientWidth + 1
      && getComputedStyle(room).overflowX != "auto"; }).length"""


@pytest.fixture
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page_of(outputs, toy, browser):
    """page_of(width): the report of a small study, opened from its file.

    Page.asked holds the requests it made.
    """
    name = finished(toy())
    figures_of(name)
    pivot = new_output("display_data", {"text/html": PIVOT})
    write_notebook(name, "13_table.ipynb", cell("# 13. A table", pivot))
    path = report.build(name)

    def opened(width):
        page, asked, errors = browser.new_page(viewport={"width": width, "height": 900}), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        page.asked = [url for url in asked if not url.startswith("data:") and url != path.as_uri()]
        page.errors = errors
        return page

    return opened


@pytest.mark.parametrize("width", [1280, 400])
def test_it_opens_offline_with_every_figure_visible_and_asks_no_host(page_of, width):
    page = page_of(width)
    assert page.asked == [] and page.errors == []
    assert page.evaluate(VISIBLE) == [True] * 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT) == 0


def test_on_a_phone_a_tap_enlarges_a_figure_and_the_page_stays_as_wide(page_of):
    page = page_of(400)
    figure = page.locator("figure:has(img)").first
    before = figure.locator("img").bounding_box()["width"]
    figure.locator("label").click()
    assert figure.locator("img").bounding_box()["width"] > 2 * before
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_explorer_follows_its_slider_its_data_and_its_curves(page_of):
    page = page_of(1280)
    explorer = page.locator("#explorer")
    assert explorer.locator("svg[role=img]").count() == 3
    slider, rows = explorer.locator("input[type=range]"), explorer.locator("tbody tr")
    first = explorer.locator("output").inner_text()
    slider.press("Home")
    assert explorer.locator("output").inner_text().strip() == "0.0 %" != first
    assert set(explorer.locator("tbody td:last-child").all_inner_texts()) == {"dense"}
    shown = rows.count()
    explorer.locator("input[type=checkbox]:checked").first.uncheck()
    assert rows.count() == shown - 1
    explorer.locator("select").select_option("1")
    assert explorer.locator("select option").nth(1).inner_text() == "50 % of stripes"
    assert page.errors == []


def test_in_the_dark_the_page_is_dark_and_its_text_stands_out(page_of):
    page = page_of(1280)
    page.emulate_media(color_scheme="dark")
    ink, paper = page.evaluate(
        """["color", "backgroundColor"].map(name =>
            Math.max(...getComputedStyle(document.body)[name].match(/\\d+/g).map(Number)))"""
    )
    assert ink > 200 and paper < 60


def test_in_print_nothing_is_wider_than_the_sheet_and_heads_repeat(page_of):
    page = page_of(688)  # A4 less its margins, at 96 dots per inch
    page.emulate_media(media="print")
    widest = (
        "Math.max(...[...document.querySelectorAll('table, img, p')].map(e =>"
        " e.getBoundingClientRect().right))"
    )
    assert page.evaluate(widest) <= 688
    assert not page.locator("nav").is_visible()
    assert (
        page.evaluate("getComputedStyle(document.querySelector('thead')).display")
        == "table-header-group"
    )
    assert (
        page.evaluate("getComputedStyle(document.querySelector('figure')).breakInside") == "avoid"
    )
    assert page.pdf(prefer_css_page_size=True)[:5] == b"%PDF-"


def test_the_committed_report_prints_on_twelve_pages_asks_no_host_and_is_small(browser):
    assert COMMITTED.stat().st_size <= 4_000_000
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(COMMITTED.as_uri())
    sheets = page.pdf(format="A4", print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b", sheets)) <= 12
    assert all(url.startswith("data:") for url in asked if url != COMMITTED.as_uri())


def test_axe_finds_no_barrier(page_of):
    for width, scheme in product([1280, 400], ["light", "dark"]):
        page = page_of(width)
        page.emulate_media(color_scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        violations = axe.Axe().run(page, options=ACCESSIBLE).response["violations"]
        found = {each["id"]: [node["html"] for node in each["nodes"]] for each in violations}
        assert found == {}, (width, scheme)
