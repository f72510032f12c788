"""One record, whole, below the browser's tabs: its card and what it builds on."""

from pathlib import Path
from typing import Any

import ipywidgets as w

from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import WIDE, row
from dwlt_lib.plotting import figures
from dwlt_lib.records import store


class RecordPanel(w.VBox):
    """A record's card, and buttons that open what it builds on."""

    def __init__(self) -> None:
        """Without a record the panel is empty."""
        super().__init__(layout=WIDE)

    def clear(self) -> None:
        """Show no record."""
        self.children = ()

    def show(self, id: str, study: str) -> None:
        """Show a record, or one line that says why it cannot be read.

        Args:
            id: of the record.
            study: the name of the study among whose executed notebooks the record's is looked for.
        """
        try:
            record = store.read(id)
        except (KeyError, ValueError, OSError) as error:
            self.children = (w.HTML(markup.problem(f"record {id} cannot be read: {error}")),)
            return
        curve = ""
        if record.history:
            curve = markup.figure_png(figures.training_curve(record.history))
        card = markup.record(record, curve, _executed_notebook(study, id))
        buttons = [
            _button(f"builds on {up[:8]}", lambda _, up=up: self.show(up, study), tooltip=up)
            for up in record.upstream
        ]
        self.children = (w.HTML(card), row(*buttons, _button("close", lambda _: self.clear())))


def _button(label: str, call: Any, **options: Any) -> w.Button:
    button = w.Button(description=label, **options)
    button.on_click(call)
    return button


def _executed_notebook(study: str, id: str) -> Path | None:
    """The study's executed compute notebook that names the record."""
    for path in sorted((store.study_dir(study) / "notebooks").glob("0[1-9]_*.ipynb")):
        if id in path.read_text(encoding="utf-8", errors="replace"):
            return path
    return None
