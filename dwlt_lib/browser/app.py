"""The browser: live controls over records. It shows what records say and computes no result.

`browse()` draws it in a notebook.
"""

from __future__ import annotations

import os

import ipywidgets as w

from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import WIDE, Tab, dropdown, row
from dwlt_lib.browser.images_tab import ImagesTab
from dwlt_lib.browser.landscapes_tab import LandscapesTab
from dwlt_lib.browser.record_panel import RecordPanel
from dwlt_lib.browser.results_tab import ResultsTab
from dwlt_lib.browser.sparsity_tab import SparsityTab
from dwlt_lib.records import store

PROBLEMS_SHOWN = 5


def browse(study: str = "") -> None:
    """Show the browser in a notebook.

    Args:
        study: the name of the study to open first; else the environment's DWLT_STUDY, else the
            first study made here, else the first committed reference.

    Example:
        >>> browse("tour_full")
    """
    from IPython.display import display

    page = Browser(study or os.environ.get("DWLT_STUDY", ""))
    display(page)
    page.sparsity.show_masks()  # they need torch, and come after the first paint


class Browser(w.VBox):
    """The page: a study, four tabs over its records, and below them the record that is opened.

    Attributes:
        study: the names of the studies to choose from.
        problems: what cannot be read or is not there yet, in lines.
        tabs: the four tabs, which are also attributes of their own: sparsity, results, landscapes,
            images.
        record: the record that was opened last.
    """

    def __init__(self, study: str = "") -> None:
        """Read the study's records and draw the first tab, without masks.

        Args:
            study: its name; if there is none of that name, the page says so. Without a name, the
                first study made here, else the first committed reference.
        """
        names = store.study_names()
        own = [name for name in names if (store.study_dir(name) / "study.json").exists()]
        options = [(name if name in own else f"{name} (reference)", name) for name in names]
        if study and study not in names:
            options.append((study, study))
        self.study = dropdown("study", options)
        self.study.value = study or next(iter([*own, *names]), None)
        reload = w.Button(description="Reload", icon="refresh", layout={"width": "90px"})
        self.problems, self.record = w.HTML(layout=WIDE), RecordPanel()
        self.sparsity, self.results = SparsityTab(self.show_record), ResultsTab(self.show_record)
        self.landscapes, self.images = LandscapesTab(), ImagesTab()
        self.tabs = w.Tab(
            [self.sparsity, self.results, self.landscapes, self.images],
            titles=["Sparsity", "Results", "Landscapes", "Images"],
        )
        head = row(self.study, reload)
        super().__init__([w.HTML(markup.CSS), head, self.problems, self.tabs, self.record])
        self.study.observe(lambda _: self.read(), names="value")
        self.tabs.observe(lambda _: self._open_tab().show(), names="selected_index")
        reload.on_click(lambda _: self.read())
        self.read()

    def read(self) -> None:
        """Read the study's records anew and draw the open tab."""
        problems: list[str] = []
        records, name = store.empty_table(), self.study.value
        if name is None:
            problems.append(
                f"No study under {store.outputs()}: run make tour, or set DWLT_OUTPUTS to the"
                " folder that holds records and studies."
            )
        else:
            try:
                planned = len(store.study(name)["ids"])
                records = store.table(study=name, damaged=problems)
                if not problems and len(records) < planned:
                    problems.append(
                        f"{planned - len(records)} of {planned} records are not there yet; they are"
                        f" made by: dwlt run params/{name}.yaml"
                    )
            except (KeyError, ValueError, OSError) as error:
                problems.append(str(error.args[0] if error.args else error))
        if len(problems) > PROBLEMS_SHOWN:
            more = f"and {len(problems) - PROBLEMS_SHOWN} more; dwlt verify names them all"
            problems[PROBLEMS_SHOWN:] = [more]
        self.problems.value = "".join(map(markup.problem, problems))
        self.record.clear()
        for tab in self.tabs.children:
            tab.refresh(name, records)
        self._open_tab().show()

    def show_record(self, id: str) -> None:
        """Open a record below the tabs.

        Args:
            id: of the record.
        """
        self.record.show(id, self.study.value)

    def _open_tab(self) -> Tab:
        return self.tabs.children[self.tabs.selected_index or 0]
