"""The browser: live controls over records. It shows what records say and computes no result of its
own.

`browse()` draws it in a notebook; everything is closed over one study at a time and read again by
its reload button.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets as w
import pandas as pd

from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import WIDE, row
from dwlt_lib.browser.pictures_tab import images_tab, landscapes_tab, png
from dwlt_lib.browser.results_tab import results
from dwlt_lib.browser.sparsity_tab import sparsity
from dwlt_lib.plotting import figures
from dwlt_lib.records import store

ALONE = (  # what a shown notebook may load
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
)


def browse(study: str = "") -> None:
    """Show the browser. study: which to open first; else the environment's DWLT_STUDY, else the
    first study made here, else the first committed reference."""
    from IPython.display import display

    page = build(study or os.environ.get("DWLT_STUDY", ""))
    display(page.box)
    page.finish()  # what needs masks, and with them torch, comes after the first paint


def build(study: str = "") -> SimpleNamespace:
    """The browser's parts: box (the page), finish (a function.

    Draws the masks), and its controls by name.
    """
    page, names = SimpleNamespace(), store.study_names()
    page.problems = w.HTML(layout=WIDE)
    if not names:
        page.problems.value = markup.problem(
            f"No study under {store.outputs()}: run make tour, or set DWLT_OUTPUTS "
            "to the folder that holds records and studies."
        )
        page.box, page.finish = w.VBox([w.HTML(markup.CSS), page.problems]), lambda: None
        return page
    own = [n for n in names if (store.study_dir(n) / "study.json").exists()]
    page.study = w.Dropdown(
        options=[(n if n in own else f"{n} (reference)", n) for n in names], description="study"
    )
    page.study.value = study if study in names else [*own, *names][0]
    reload = w.Button(description="Reload", icon="refresh", layout=w.Layout(width="90px"))
    page.data, page.tabs = SimpleNamespace(table=pd.DataFrame()), None
    page.open = lambda id: _panel(page, id)
    page.is_open = lambda part: (
        page.tabs is not None and parts[page.tabs.selected_index or 0] is part
    )
    page.record = w.VBox(layout=WIDE)
    parts = [sparsity(page), results(page), landscapes_tab(page), images_tab(page)]
    page.tabs = w.Tab(
        [part.box for part in parts], titles=["Sparsity", "Results", "Landscapes", "Images"]
    )
    page.box = w.VBox(
        [w.HTML(markup.CSS), row(page.study, reload), page.problems, page.tabs, page.record]
    )

    def read(_: Any = None) -> None:
        _read(
            page,
            (
                f"study {study!r} is not here; want one of {names}"
                if study and study not in names
                else ""
            ),
        )
        for part in parts:
            part.refresh()
        page.record.children = ()

    def opened(change: dict) -> None:
        parts[change["new"]].opened()

    page.study.observe(read, names="value")
    page.tabs.observe(opened, names="selected_index")
    reload.on_click(lambda _: (read(), page.finish()))
    page.finish = parts[0].masks
    page.parts = SimpleNamespace(
        sparsity=parts[0], results=parts[1], landscapes=parts[2], images=parts[3]
    )
    read()
    return page


def _read(page: SimpleNamespace, line: str) -> None:
    """The study's table into page.data; what cannot be read is said and left out."""
    lines = [line] if line else []
    try:
        page.data.table = store.table(study=page.study.value, damaged=lines)
        planned = len(store.study(page.study.value)["ids"])
    except (KeyError, ValueError, OSError) as error:
        page.data.table, planned = store.empty_table(), 0
        lines.append(str(error.args[0] if error.args else error))
    here = len(page.data.table)
    if not lines and here < planned:
        lines.append(
            f"{planned - here} of {planned} records are not there yet; they are made by: "
            f"dwlt run params/{page.study.value}.yaml"
        )
    page.problems.value = "".join(map(markup.problem, lines[:5])) + (
        markup.problem(f"and {len(lines) - 5} more; dwlt verify names them all")
        if len(lines) > 5
        else ""
    )


def _panel(page: SimpleNamespace, id: str) -> None:
    """Opens a record below the tabs.

    Its card, and buttons to what it builds on and to its executed notebook.
    """
    try:
        found = store.read(id)
    except (KeyError, ValueError, OSError) as error:
        page.record.children = (w.HTML(markup.problem(f"record {id} cannot be read: {error}")),)
        return
    curve, notebook = "", w.HTML(layout=WIDE)
    if found.history:
        curve = png(figures.training_curve(found.history))
    buttons = []
    for up in found.upstream:
        button = w.Button(
            description=f"builds on {up[:8]}", tooltip=up, layout=w.Layout(width="150px")
        )
        button.on_click(lambda _, up=up: _panel(page, up))
        buttons.append(button)
    made_by = _notebook(page.study.value, found.id)
    show = w.Button(
        description="executed notebook", disabled=made_by is None, layout=w.Layout(width="170px")
    )
    show.on_click(lambda _: setattr(notebook, "value", _executed(made_by)))
    close = w.Button(description="close", layout=w.Layout(width="80px"))
    close.on_click(lambda _: setattr(page.record, "children", ()))
    page.record.children = (
        w.HTML(markup.record(found, curve, executed=made_by is not None)),
        row(*buttons, show, close),
        notebook,
    )


def _notebook(study: str, id: str) -> Path | None:
    """The executed compute notebook that names a record."""
    folder = store.study_dir(study) / "notebooks"
    paths = sorted(folder.glob("0[1-9]_*.ipynb"))
    return next(
        (path for path in paths if id in path.read_text(encoding="utf-8", errors="replace")), None
    )


def _executed(path: Path) -> str:
    """A notebook as a page in a frame that may run nothing and ask nobody."""
    from nbconvert import HTMLExporter

    try:
        page, _ = HTMLExporter(template_name="classic").from_filename(str(path))
    except Exception as error:  # cut short: nbformat's and nbconvert's errors have no common root
        return markup.problem(
            f"{path}: cannot be shown ({type(error).__name__}); run the study again"
        )
    page = re.sub(r"(?is)<script\b.*?</script\s*>|<link\b[^>]*>|@font-face\s*{[^}]*}", "", page)
    page = page.replace(
        "<head>", f'<head><meta http-equiv="Content-Security-Policy" content="{ALONE}">', 1
    )
    return markup.card("notebook", path=path, page=page)
