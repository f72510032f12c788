"""JupyterLab in a browser.

The tour runs from its first cell to its last, and its sliders move something.
"""

import os
import re
import shutil
import subprocess

import pytest
from conftest import DWLT, FIRST, STARTING

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser
ERRORS = (
    '[data-mime-type="application/vnd.jupyter.error"],'
    ' [data-mime-type="application/vnd.jupyter.stderr"]'
)


@pytest.fixture(scope="module")
def lab(chromium, serve, tmp_path_factory, request):
    """The URL of JupyterLab over a copy of the checkout (it saves what it runs) with a finished
    tiny study.
    """
    root, copy = request.config.rootpath, tmp_path_factory.mktemp("checkout")
    for name in ("dwlt_lib", "notebooks", "params"):
        shutil.copytree(
            root / name,
            copy / name,
            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
        )
    here = {
        "PYTHONPATH": str(copy),
        "DWLT_OUTPUTS": str(copy / "outputs"),
        "OMP_NUM_THREADS": "1",
        "JUPYTERLAB_SETTINGS_DIR": str(copy / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(copy / "workspaces"),
    }
    subprocess.run(
        [*DWLT, "run", str(root / "tests" / "tiny.yaml"), "--executor", "inline"],
        cwd=copy,
        check=True,
        env={**os.environ, **here},
        capture_output=True,
    )
    return serve("lab", "--no-browser", "--port", 0, cwd=copy, **here)[0]


@pytest.fixture(params=[1280, 400])
def tour(request, lab, page):
    """The tour in JupyterLab, all of its cells run, at a desk's and at a phone's width."""
    found = page(request.param, 900)
    found.goto(lab)
    found.locator(".jp-Notebook .jp-CodeCell").last.wait_for(state="attached", **FIRST)
    idle = found.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    idle.first.wait_for(state="attached", **FIRST)
    found.locator(".jp-KernelName", has_text="Python 3").first.wait_for(state="attached")
    palette = found.locator(".lm-CommandPalette-input")  # the command palette, there at every width
    for _ in range(20):
        found.locator(".jp-NotebookPanel-toolbar").click(position={"x": 3, "y": 3})
        found.keyboard.press("Control+Shift+C")
        try:
            palette.fill("run all cells", timeout=3000)
            run = found.locator(
                ".lm-CommandPalette-item", has_text=re.compile("^Run All Cells")
            ).first
            run.click(timeout=3000)
            break
        except sync_api.TimeoutError:  # not ready to listen yet, or closed again
            continue
    found.wait_for_function(
        """() => {
        const prompts = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')];
        return prompts.length > 10 && prompts.every(prompt => /\\[\\d+\\]/.test(prompt.textContent))
            || document.querySelector('[data-mime-type="application/vnd.jupyter.error"]');
    }""",
        timeout=3000 * STARTING,
    )
    if request.param < 800:
        found.keyboard.press("Control+B")  # the file browser would take most of a phone
    return found


def test_the_tour_runs_in_a_browser_without_an_error_and_its_sliders_move_something(tour, tmp_path):
    width = tour.viewport_size["width"]
    tour.screenshot(path=tmp_path / f"tour_{width}.png")
    said = [one.inner_text() for one in tour.locator(ERRORS).all()]
    assert all("is at chance" in text for text in said), (
        said
    )  # a study as small as this one may have such a network
    assert tour.get_by_text("Study 'tour' has not run here").count() == 1
    cells = tour.locator(".jp-CodeCell").filter(has=tour.locator(".widget-hslider"))
    assert cells.count() == 3
    for cell in cells.all():
        cell.scroll_into_view_if_needed()
        output, readout = cell.locator(".jp-Cell-outputArea"), cell.locator(".widget-readout")
        before, level = output.inner_text(), readout.inner_text()
        cell.locator(".noUi-handle").press("ArrowRight")
        sync_api.expect(readout).not_to_have_text(level)
        if cell.locator("button", has_text="transfer").count() == 0:
            others = "([output, was, level]) => output.innerText.replace(level, '') !== was"
            now = [output.element_handle(), before.replace(level, ""), readout.inner_text()]
            tour.wait_for_function(others, arg=now)
        name = re.sub(r"\W+", "_", cell.locator(".jp-InputArea").inner_text())
        cell.screenshot(path=tmp_path / f"{name}_{width}.png")
    assert [problem for problem in tour.problems if "favicon" not in problem] == []


def test_a_ticket_is_transferred_at_the_press_of_a_button(tour):
    button = tour.locator(".jp-OutputArea button", has_text=re.compile("^transfer$"))
    button.scroll_into_view_if_needed()
    button.click()
    cell = tour.locator(".jp-CodeCell").filter(has=tour.locator(".widget-toggle-buttons"))
    cell.locator("td", has_text=re.compile(r"^ST$")).wait_for()
    assert cell.locator("img").count() == 1
