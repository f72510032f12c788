"""What the browser's tabs share: a tab's base class, rows that wrap on narrow pages, offers."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd

from dwlt_lib.analysis import tables
from dwlt_lib.browser import markup
from dwlt_lib.config.specs import other_seeds
from dwlt_lib.plotting.style import dataset_name, percent
from dwlt_lib.records import store

WIDE = w.Layout(width="100%")


class Tab(w.VBox):
    """One tab: controls that choose among a study's records, and what they show.

    A tab is drawn when it is seen, not before. A subclass has two methods: `fill` offers what the
    records have, `draw` shows what is chosen.

    Attributes:
        kinds: of the records that are shown.
        study: the name of the study that is shown.
        records: its table, one row per record.
    """

    kinds: tuple[str, ...] = ()
    study = ""
    records = store.empty_table()
    _outdated = False
    _held = False  # while options are replaced, no change of a control is a choice

    def refresh(self, study: str, records: pd.DataFrame) -> None:
        """Take over a study's records; what is new is drawn when the tab is next seen.

        Args:
            study: its name.
            records: its table, of `records.table(study=study)`.
        """
        before = self.study, of_kind(self.records, *self.kinds)
        self.study, self.records = study, records
        if before[0] != study or not before[1].equals(of_kind(records, *self.kinds)):
            self._outdated = True
            self._fill()

    def show(self) -> None:
        """Draw what has changed since the tab was last seen."""
        if self._outdated:
            self._outdated = False
            self.draw()

    def fill(self) -> None:
        """Offer what the records have; a choice that is still among them stays."""
        raise NotImplementedError

    def draw(self) -> None:
        """Show what is chosen."""
        raise NotImplementedError

    def refill(self) -> None:
        """Offer and draw anew, as another kind of record is chosen."""
        self._fill()
        self.draw()

    def _fill(self) -> None:
        self._held = True
        try:
            self.fill()
        finally:
            self._held = False

    def on_change(self, call: Callable[[], None], *controls: w.Widget) -> None:
        """Call a function whenever one of some controls is set to another value.

        Args:
            call: takes no arguments.
            *controls: widgets with a value.
        """

        def changed(_: Any) -> None:
            if not self._held:
                call()

        for control in controls:
            control.observe(changed, names="value")


def of_kind(records: pd.DataFrame, *kinds: str) -> pd.DataFrame:
    """The records of some kinds.

    Args:
        records: a study's table, one row per record.
        *kinds: which rows to take.

    Returns:
        Those rows, without the columns that only other kinds have.
    """
    rows = records[records["kind"].isin(kinds)]
    if rows.empty:
        return store.empty_table()
    return rows[[c for c in rows.columns if c in ("SA", "RA") or rows[c].notna().any()]]


def arrays_of(id: str) -> tuple[dict[str, np.ndarray], str]:
    """A record's arrays, or why they cannot be read.

    Args:
        id: of the record.

    Returns:
        The arrays by name and "", or none and one line as HTML.
    """
    try:
        return store.read(id).arrays(), ""
    except Exception as error:  # a damaged file has many faces: safetensors' own, OSError...
        return {}, markup.problem(f"record {id} cannot be read: {error}")


def ticket_name(record: Mapping[Hashable, Any]) -> str:
    """A ticket and what it was transferred to, as one line.

    Args:
        record: a row of a table of records.

    Returns:
        Such as "θ_AT, IMP-ST, 73.8 %, CIFAR-10 100 %, AT, seed 0".
    """
    sparsity = percent(tables.sparsity_of(record), " %")
    data = f"{dataset_name(record['dataset'])} {100 * record['fraction']:g} %"
    others = other_seeds({key: record[key] for key in tables.SEEDS if pd.notna(record.get(key))})
    ticket = f"θ_{record['pretraining']}, {record['method']}, {sparsity}"
    return f"{ticket}, {data}, {record['regime']}, seed {record['seed']}{others}"


def dropdown(label: str, options: Any = (), **layout: str) -> Any:
    """A list that drops down.

    Args:
        label: what stands before it.
        options: values, pairs (label, value) or {label: value}.
        **layout: of the widget, such as width="230px".

    Returns:
        The widget, typed as any: to a type checker a widget's value is whatever it may be at first.
    """
    return w.Dropdown(options=options, description=label, layout=layout)


def offer(box: Any, options: list, first: Any = None) -> None:
    """Give a box these options; its choice stays if it is among them.

    Args:
        box: a drop-down list or the like.
        options: values, or pairs (label, value).
        first: chosen where nothing was that is still offered; None: the first option.
    """
    values = [option[1] if isinstance(option, tuple) else option for option in options]
    first = next(iter(values), None) if first is None else first
    choice = box.value if box.value in values else first
    if box.options != tuple(options):
        with box.hold_sync():  # the page sees no choice in between
            box.options = options
            box.value = choice


def data_options(records: pd.DataFrame) -> list[tuple[str, tuple[str, float]]]:
    """The shares of data sets that records are about, as options of a list.

    Args:
        records: a table, with or without the columns dataset and fraction.

    Returns:
        ("CIFAR-10, 10 %", (dataset, fraction)) each: the most data first.
    """
    if not {"dataset", "fraction"} <= set(records.columns):
        return []
    data = records[["fraction", "dataset"]].dropna().drop_duplicates()
    data = data.sort_values(["fraction", "dataset"], ascending=[False, True])
    pairs = [(d, f) for f, d in data.itertuples(index=False)]
    return [(f"{dataset_name(d)}, {100 * f:g} %", (d, f)) for d, f in pairs]


def row(*children: w.Widget, align_items: str = "center") -> w.Box:
    """Widgets side by side, below each other where the page is narrow.

    Args:
        *children: the widgets.
        align_items: how they stand in the row's height, as CSS says it.

    Returns:
        The box that holds them.
    """
    layout = w.Layout(display="flex", flex_flow="row wrap", align_items=align_items, width="100%")
    return w.Box(children, layout=layout)


def halves(*children: w.Widget) -> w.Box:
    """Widgets of equal width side by side, below each other where there is no room.

    Args:
        *children: the widgets.

    Returns:
        The box that holds them.
    """
    half = w.Layout(flex="1 1 340px", min_width="0", max_width="100%")
    return row(*(w.VBox([child], layout=half) for child in children), align_items="flex-start")
