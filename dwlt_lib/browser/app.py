"""The browser: live controls over records. It shows what records say and computes no result.

`browse()` draws it in a notebook.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import suppress

import ipywidgets as w

from dwlt_lib.browser import markup
from dwlt_lib.browser.compare_tab import CompareTab
from dwlt_lib.browser.controls import WIDE, Tab, dropdown, offer, row
from dwlt_lib.browser.images_tab import ImagesTab
from dwlt_lib.browser.landscapes_tab import LandscapesTab
from dwlt_lib.browser.leaderboard_tab import LeaderboardTab
from dwlt_lib.browser.record_panel import RecordPanel
from dwlt_lib.browser.results_tab import ResultsTab
from dwlt_lib.browser.sparsity_tab import SparsityTab
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import label
from dwlt_lib.config.studies import Study
from dwlt_lib.records import failures, leases, store

log = logging.getLogger(__name__)
PROBLEMS_SHOWN = 5
PAUSE = 3.0  # seconds between two looks at the store
LATEST = 10.0  # seconds after which the page is completed, seen or not


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
    try:
        page.watching = asyncio.get_running_loop().create_task(page.watch())
    except RuntimeError:  # no event loop: nobody looks on
        page.sparsity.complete()


class Browser(w.VBox):
    """The page: a study, tabs over its records, and below them the record that is opened.

    Attributes:
        study: the names of the studies to choose from.
        progress: how many records are there, and who makes which.
        failed: what failed, by kind and with the reason.
        problems: what cannot be read, in lines.
        tabs: all of them, which are also attributes of their own: sparsity, results, landscapes,
            images, compare, leaderboard.
        record: the record that was opened last.
        watching: the task that looks at the store; None where no event loop runs.
    """

    watching: asyncio.Task | None = None

    def __init__(self, study: str = "") -> None:
        """Read the study's records and draw the first tab, without verdict and masks.

        Args:
            study: its name; if there is none of that name, the page says so. Without a name, the
                first study made here, else the first committed reference.
        """
        self.study = dropdown("study")
        self._asked, self._labels = study, {}
        self.progress, self.failed = w.HTML(layout=WIDE), w.HTML(layout=WIDE)
        self.problems, self.record = w.HTML(layout=WIDE), RecordPanel()
        self.sparsity, self.results = SparsityTab(self.show_record), ResultsTab(self.show_record)
        self.landscapes, self.images = LandscapesTab(), ImagesTab()
        self.compare, self.leaderboard = CompareTab(self.show_record), LeaderboardTab()
        tabs = {
            "Sparsity": self.sparsity,
            "Results": self.results,
            "Landscapes": self.landscapes,
            "Images": self.images,
            "Compare": self.compare,
            "Leaderboard": self.leaderboard,
        }
        self.tabs = w.Tab(list(tabs.values()), titles=list(tabs))
        says = [self.progress, self.failed, self.problems]
        super().__init__([w.HTML(markup.CSS), row(self.study), *says, self.tabs, self.record])
        self._offer_studies()
        self.study.observe(lambda _: self.read(), names="value")
        self.tabs.observe(lambda _: self._open_tab().show(), names="selected_index")
        self.read()

    async def watch(self) -> None:
        """Complete the page once it is seen, and look at the store every few seconds from then on.

        Verdict and masks, and with these torch, come after the first paint: meanwhile the page asks
        this kernel for what it shows.
        """
        shown = asyncio.Event()
        self.sparsity.figure.page.observe(lambda _: shown.set(), names="drawn")
        with suppress(TimeoutError):
            await asyncio.wait_for(shown.wait(), LATEST)
        self.sparsity.complete()
        while True:
            await asyncio.sleep(PAUSE)
            self.look()

    def look(self) -> None:
        """Show what is new in the store; what the reader has chosen and opened stays."""
        try:
            self._offer_studies()
            if self._say_progress() != self._there:
                self._read()
        except (KeyError, ValueError, OSError) as error:  # it is being written, or out of reach
            log.debug("the store cannot be looked at: %s", error)

    def _offer_studies(self) -> None:
        """All studies; first chosen is the one that was asked for, else one that was made here."""
        names = store.study_names()
        own = [name for name in names if (store.study_dir(name) / "study.json").exists()]
        options = [(name if name in own else f"{name} (reference)", name) for name in names]
        if self._asked and self._asked not in names:
            options.append((self._asked, self._asked))
        first = self.study.value or self._asked or next(iter([*own, *names]), None)
        offer(self.study, options, first)

    def _say_progress(self) -> list[str]:
        """Say how many records are there, who makes which, and what failed; the ids there are."""
        name = self.study.value
        if name is None:
            return []
        study, there = store.study(name), store.ids_there(name)
        known = set(there)
        missing = [id for id in study["ids"] if id not in known]
        held = leases.holders(store.leases_root()) if missing else {}
        running = [id for id in missing if id in held]
        if not self._labels.keys() >= set(running):
            asked = Study.model_validate_json(json.dumps(study["params"]))
            self._labels = {id: f"record {id}" for id in running}
            self._labels |= {id: label(spec) for id, spec in plan(asked).items()}
        self.progress.value = markup.card(
            "progress",
            there=len(there),
            planned=len(study["ids"]),
            running=[(self._labels[id], held[id]) for id in running],
            study=name,
        )
        failed = failures.noted(name, missing)
        self.failed.value = markup.card("failed", failures=failed) if failed else ""
        return there

    def read(self) -> None:
        """Read the study's records anew and draw the open tab; no record is open then."""
        self.record.clear()
        self._read()

    def _read(self) -> None:
        problems: list[str] = []
        self._there: list[str] = []
        records, name = store.empty_table(), self.study.value
        if name is None:
            problems.append(
                f"No study under {store.outputs()}: run make tour, or set DWLT_OUTPUTS to the"
                " folder that holds records and studies."
            )
        else:
            try:
                self._there = self._say_progress()
                records = store.table(study=name, damaged=problems)
            except (KeyError, ValueError, OSError) as error:
                problems.append(str(error.args[0] if error.args else error))
        if len(problems) > PROBLEMS_SHOWN:
            more = f"and {len(problems) - PROBLEMS_SHOWN} more; dwlt verify names them all"
            problems[PROBLEMS_SHOWN:] = [more]
        self.problems.value = "".join(map(markup.problem, problems))
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
