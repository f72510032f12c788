"""Figure notebooks are drawn when what they show has changed, and not otherwise."""

from concurrent.futures import Future
from pathlib import Path

import pytest

from dwlt_lib.config.planning import plan
from dwlt_lib.execution import figures, notebooks, runner
from dwlt_lib.records import store


class Drawing:
    """A pool that writes an empty notebook for each, but for those that fail."""

    fails = ()

    def __init__(self):
        self.drawn = []

    def submit(self, task, name, parameters, target):
        self.drawn.append(name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch()
        future = Future()
        error = "ValueError: no" if name in self.fails else ""
        future.set_result(notebooks.NotebookOutcome(0.5, error))
        return future


@pytest.fixture
def draw(toy, outputs):
    """draw(): (status, whether anything was drawn, what was) of the toy study's figures."""
    store.write_study(toy())

    def run():
        pool = Drawing()
        return (*figures.run_figures("toy", pool, lambda line: None), pool.drawn)

    return run


def test_figures_are_drawn_again_once_a_record_is_there_or_a_notebook_is_gone(draw, toy):
    every = list(figures.FIGURES)
    assert draw() == (runner.DONE, True, every) and draw() == (runner.DONE, False, [])
    store.write(next(iter(plan(toy()).values())), {}, [], {}, {})
    assert draw() == (runner.DONE, True, every) and draw() == (runner.DONE, False, [])
    (store.study_dir("toy") / "notebooks" / f"{every[-1]}.ipynb").unlink()
    assert draw() == (runner.DONE, True, every) and draw() == (runner.DONE, False, [])


def test_figures_that_failed_are_drawn_again(draw, monkeypatch, caplog):
    monkeypatch.setattr(Drawing, "fails", ("18_claims",))
    assert draw()[:2] == (runner.FAILED, True) and "18_claims: ValueError: no" in caplog.text
    monkeypatch.setattr(Drawing, "fails", ())
    assert draw()[:2] == (runner.DONE, True) and not draw()[1]


def test_every_figure_notebook_is_in_the_checkout():
    found = {path.stem for path in store.checkout().glob("notebooks/*.ipynb")}
    assert set(figures.FIGURES) <= found
