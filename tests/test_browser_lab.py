"""JupyterLab in a browser: the tour runs from its first cell to its last, and its sliders move something."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import DWLT, PATIENCE

pytestmark = pytest.mark.browser
ERRORS = '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'


@pytest.fixture(scope="module")
def lab(serve, tmp_path_factory, request):
    """The URL of JupyterLab over a copy of the checkout (it saves what it runs) with a finished tiny study."""
    root, copy = request.config.rootpath, tmp_path_factory.mktemp("checkout")
    for name in ("dwlt_lib", "notebooks", "params"):
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    here = {"PYTHONPATH": str(copy), "DWLT_OUTPUTS": str(copy / "outputs"), "OMP_NUM_THREADS": "1",
            "JUPYTERLAB_SETTINGS_DIR": str(copy / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(copy / "workspaces")}
    subprocess.run([*DWLT, "run", str(root / "tests" / "tiny.yaml"), "--executor", "inline"], cwd=copy, check=True,
                   env={**os.environ, **here}, capture_output=True)
    return serve("lab", "--no-browser", "--port", 0, cwd=copy, **here)[0]


@pytest.fixture(params=[1280, 400])
def tour(request, lab, page):
    """The tour in JupyterLab, all of its cells run, at a desk's and at a phone's width."""
    found = page(request.param, 900)
    found.goto(lab)
    found.locator(".jp-Notebook .jp-CodeCell").last.wait_for(state="attached")
    found.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').first.wait_for(state="attached")
    found.locator(".jp-KernelName", has_text="Python 3").first.wait_for(state="attached")
    found.keyboard.press("Control+Shift+C")  # the command palette, there at every width
    found.locator(".lm-CommandPalette-input").fill("run all cells")
    found.locator(".lm-CommandPalette-item", has_text=re.compile("^Run All Cells")).first.click()
    found.wait_for_function("""() => {
        const prompts = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')];
        return prompts.length > 15 && prompts.every(prompt => /\\[\\d+\\]/.test(prompt.textContent))
            || document.querySelector('[data-mime-type="application/vnd.jupyter.error"]');
    }""", timeout=2000 * PATIENCE)
    return found


def test_the_tour_runs_in_a_browser_without_an_error_and_its_sliders_move_something(tour, tmp_path):
    width = tour.viewport_size["width"]
    tour.screenshot(path=tmp_path / f"tour_{width}.png")
    assert tour.locator(ERRORS).count() == 0, tour.locator(ERRORS).first.inner_text()
    assert tour.get_by_text("Study 'tour' has not run here").count() == 1
    sliders = tour.locator(".jp-OutputArea .widget-hslider")
    assert sliders.count() == 4
    for slider in sliders.all():
        cell = tour.locator(".jp-CodeCell", has=slider)
        slider.scroll_into_view_if_needed()
        before, level = cell.locator(".jp-OutputArea").inner_text(), slider.locator(".widget-readout").inner_text()
        slider.locator(".noUi-handle").press("ArrowRight")
        tour.wait_for_function("([readout, was]) => readout.textContent !== was",
                               arg=[slider.locator(".widget-readout").element_handle(), level])
        if cell.locator("button", has_text="transfer").count() == 0:
            tour.wait_for_function("([output, was]) => output.innerText !== was",
                                   arg=[cell.locator(".jp-OutputArea").element_handle(), before])
    assert [problem for problem in tour.problems if "favicon" not in problem] == []


def test_a_ticket_is_transferred_at_the_press_of_a_button(tour):
    button = tour.locator(".jp-OutputArea button", has_text=re.compile("^transfer$"))
    button.scroll_into_view_if_needed()
    button.click()
    cell = tour.locator(".jp-CodeCell", has=button)
    cell.locator("td", has_text=re.compile(r"^ST$")).wait_for()
    assert cell.locator("img").count() == 1
