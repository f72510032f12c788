"""One record, whole, below the browser's tabs: its card, what it builds on, its notebook."""

import re
from pathlib import Path
from typing import Any

import ipywidgets as w

from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import WIDE, row
from dwlt_lib.plotting import figures
from dwlt_lib.records import store

# what a shown notebook may load: nothing but what it carries in itself
NOTEBOOK_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
FOREIGN = r"(?is)<script\b.*?</script\s*>|<link\b[^>]*>|@font-face\s*{[^}]*}"


class RecordPanel(w.VBox):
    """A record's card, buttons that open what it builds on, and its executed notebook."""

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
        notebook, page = _executed_notebook(study, id), w.HTML(layout=WIDE)

        def show_notebook(_: Any) -> None:
            page.value = _notebook_page(notebook) if notebook else ""

        buttons = [
            _button(f"builds on {up[:8]}", 150, lambda _, up=up: self.show(up, study), tooltip=up)
            for up in record.upstream
        ]
        buttons.append(_button("executed notebook", 170, show_notebook, disabled=notebook is None))
        buttons.append(_button("close", 80, lambda _: self.clear()))
        curve = ""
        if record.history:
            curve = markup.figure_png(figures.training_curve(record.history))
        card = markup.record(record, curve, executed=notebook is not None)
        self.children = (w.HTML(card), row(*buttons), page)


def _button(label: str, width: int, call: Any, **options: Any) -> w.Button:
    """A button so many pixels wide."""
    button = w.Button(description=label, layout=w.Layout(width=f"{width}px"), **options)
    button.on_click(call)
    return button


def _executed_notebook(study: str, id: str) -> Path | None:
    """The study's executed compute notebook that names the record."""
    for path in sorted((store.study_dir(study) / "notebooks").glob("0[1-9]_*.ipynb")):
        if id in path.read_text(encoding="utf-8", errors="replace"):
            return path
    return None


def _notebook_page(path: Path) -> str:
    """A notebook in a frame in which nothing runs and which asks no host for anything."""
    from nbconvert import HTMLExporter

    try:
        page, _ = HTMLExporter(template_name="classic").from_filename(str(path))
    except Exception as error:  # cut short: nbformat's and nbconvert's errors have no common root
        reason = type(error).__name__
        return markup.problem(f"{path}: cannot be shown ({reason}); run the study again")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{NOTEBOOK_POLICY}">'
    page = re.sub(FOREIGN, "", page).replace("<head>", f"<head>{policy}", 1)
    return markup.card("notebook", path=path, page=page)
