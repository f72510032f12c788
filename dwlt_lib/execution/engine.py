"""A papermill engine that runs a notebook in this very process: no sockets, nothing to get lost.

The kernel is ipykernel's in-process one; papermill's own client makes a cell's outputs of what it
says. A process runs one notebook: the kernel's names stay.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ipykernel.inprocess.blocking import BlockingInProcessKernelClient
from ipykernel.inprocess.ipkernel import InProcessKernel
from matplotlib_inline.backend_inline import configure_inline_support
from nbclient.client import timestamp
from nbclient.exceptions import CellExecutionComplete
from nbclient.util import run_sync
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines
from traitlets.config import Config

from dwlt_lib.execution.workers import INLINE

NAME = "inprocess"
SECONDS = 60  # in which the last of a cell's messages comes from a thread of this process


class Client(PapermillNotebookClient):
    """papermill's, but a cell's messages are read when it has ended, from a queue."""

    kc: Any
    """The kernel's client, which is in this process, too."""

    def execute(self, **_: Any) -> NotebookNode:
        """Run all cells, up to the first that fails.

        Returns:
            The notebook with their outputs.
        """
        self.reset_execution_trackers()
        self.widget_registry = {}  # what an Output widget captures stays the cell's own output
        kernel = InProcessKernel.instance(config=Config({"HistoryManager": {"enabled": False}}))
        configure_inline_support(kernel.shell, INLINE)
        self.kc = BlockingInProcessKernelClient(
            kernel=kernel, session=kernel.session, allow_stdin=False
        )
        self.kc.start_channels()
        self.papermill_execute_cells()
        self.nb.metadata["language_info"] = kernel.language_info
        self.set_widgets_metadata()
        return self.nb

    def execute_cell(self, cell: NotebookNode, cell_index: int) -> None:
        """Run a cell and fill its outputs.

        Args:
            cell: of the notebook, changed in place.
            cell_index: its place in the notebook.

        Raises:
            CellExecutionError: the cell failed.
        """
        if cell.cell_type != "code" or not cell.source.strip():
            return
        cell.outputs, cell.metadata["execution"] = [], {}
        self.clear_before_next_output = False
        self.kc.execute(cell.source)
        with suppress(CellExecutionComplete):
            while True:
                self.process_message(self.kc.get_iopub_msg(timeout=SECONDS), cell, cell_index)
        reply = self.kc.get_shell_msg(timeout=SECONDS)
        cell.metadata["execution"]["shell.execute_reply"] = timestamp(reply)
        run_sync(self._check_raise_for_error)(cell, cell_index, reply)


class InProcess(Engine):
    """papermill knows it as `NAME`."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **_: Any
    ) -> NotebookNode:
        """Run a notebook, whose parameters and working directory papermill has set.

        Args:
            nb_man: holds the notebook.
            kernel_name: is not used: there is one kernel.

        Returns:
            The notebook with its outputs.
        """
        return Client(nb_man).execute()


papermill_engines.register(NAME, InProcess)
