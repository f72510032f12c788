"""Figure notebooks are drawn when what they show has changed, and not otherwise."""

import shutil
from concurrent.futures import Future

import nbformat
import papermill
import pytest

from dwlt_lib.config.planning import plan
from dwlt_lib.execution import figures, notebooks, runner
from dwlt_lib.records import leases, store


class Here:
    """A pool whose tasks run at once, in this process."""

    def submit(self, task, *args):
        future = Future()
        future.set_result(task(*args))
        return future


@pytest.fixture
def draw(toy, outputs, monkeypatch):
    """draw(fails=()): (status, whether anything was drawn, what was) of the toy study's figures."""
    store.write_study(toy())

    def run(fails=()):
        drawn = []

        def run_notebook(name, parameters, target):
            drawn.append(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
            return notebooks.NotebookOutcome(0.5, "ValueError: no" if name in fails else "")

        monkeypatch.setattr(figures, "run_notebook", run_notebook)
        return (*figures.run_figures("toy", Here(), lambda line: None), drawn)

    return run


def test_figures_are_drawn_again_once_a_record_is_there_or_a_notebook_is_gone(draw, toy):
    every = list(figures.FIGURES)
    assert draw() == (runner.DONE, True, every) and draw() == (runner.DONE, False, [])
    store.write(next(iter(plan(toy()).values())), {}, [], {}, {})
    assert draw() == (runner.DONE, True, every) and draw() == (runner.DONE, False, [])
    (store.study_dir("toy") / "notebooks" / f"{every[-1]}.ipynb").unlink()
    assert draw() == (runner.DONE, True, every[-1:]) and draw() == (runner.DONE, False, [])


def test_figures_that_failed_are_drawn_again(draw, caplog):
    assert draw(["18_claims"])[:2] == (runner.FAILED, True)
    assert "18_claims: ValueError: no" in caplog.text
    assert draw() == (runner.DONE, True, ["18_claims"]) and not draw()[1]


def test_what_another_run_draws_is_waited_for_and_drawn_here_only_if_that_one_fails(
    draw, monkeypatch
):
    root = store.study_dir("toy") / "notebooks" / figures.LEASES
    other = leases.acquire(root, "18_claims")
    waits = []

    def gives_up(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            other.__exit__(ValueError, ValueError(), None)

    monkeypatch.setattr(figures.time, "sleep", gives_up)
    status, _, drawn = draw()
    assert status == runner.DONE and len(waits) == 2
    assert drawn == [name for name in figures.FIGURES if name != "18_claims"] + ["18_claims"]
    assert not list(root.iterdir())


def test_every_figure_notebook_is_in_the_checkout():
    found = {path.stem for path in store.checkout().glob("notebooks/*.ipynb")}
    assert set(figures.FIGURES) <= found


@pytest.mark.parametrize("name", ["11_existence", "15_mask_patterns"])
def test_a_figure_notebook_compares_two_studies(name, toy, toy_records, outputs, tmp_path):
    shutil.copytree(toy_records[1], outputs)
    store.write_study(toy(name="twin", margins={"SA": 0.5, "RA": 0.5}))
    source = store.checkout() / "notebooks" / f"{name}.ipynb"
    both = {"study": "toy", "other": "twin"}
    papermill.execute_notebook(
        source, tmp_path / "done.ipynb", both, cwd=str(source.parent), progress_bar=False
    )
    cells = nbformat.read(tmp_path / "done.ipynb", 4).cells
    shown = "".join(str(cell.get("outputs", "")) for cell in cells)
    assert "margins.SA" in shown and "twin:" in shown
    drawings = list((store.study_dir("toy") / "figures_with_twin").glob("*.svg"))
    assert drawings and not (store.study_dir("toy") / "figures").exists()
    assert any(">twin<" in path.read_text() for path in drawings)
