"""Every compute notebook alone, under papermill and under jupyter execute.

The same records as the command makes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import pytest
from test_end_to_end import contents, dwlt

from dwlt_lib.config.planning import NOTEBOOKS, Job, expand
from dwlt_lib.config.specs import record_id, upstream
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store

TINY = Path(__file__).parent / "tiny.yaml"
ON = {
    "pretraining": "AT",
    "method": "IMP-ST",
    "dataset": "digits",
    "fraction": 0.1,
    "regime": "AT",
    "rounds": (0, 2),
    "seeds": (0,),
    "theta_seed": None,
    "mask_seed": None,
    "subset_seed": None,
}
# what a notebook is asked for here: the tiny study makes all of it, too
ASKED = {
    "pretrain": {"pretraining": "AT", "dataset": "", "theta_seed": None},
    "prune": {
        "pretraining": "AT",
        "method": "IMP-ST",
        "rounds": (1, 2),
        "theta_seed": 0,
        "mask_seed": 0,
    },
    "transfer": {**ON, "fraction": 1.0, "regime": "ST", "rounds": (0, 1)},
    "data_efficiency": ON,
    "landscape": {**ON, "rounds": (2,), "images": ("clean",)},
    "transfer_attack": ON,
    "robustness": ON,
}


def wanted(kind):
    """Ids of the records that a notebook makes, with all they build on."""
    found, left = (
        {},
        expand(
            read_study(TINY),
            Job(
                kind=kind,
                **{
                    name: value for name, value in ASKED[kind].items() if name in NOTEBOOKS[kind][1]
                },
            ),
        ),
    )
    while left:
        spec = left.pop()
        found[record_id(spec)] = spec
        left += upstream(spec)
    return set(found)


def values(kind):
    return {
        "params": str(TINY),
        "device": "cpu",
        **{
            name: list(value) if isinstance(value, tuple) else value
            for name, value in ASKED[kind].items()
        },
    }


def source(kind):
    return store.checkout() / "notebooks" / f"{NOTEBOOKS[kind][0]}.ipynb"


def under_papermill(kind, folder):
    papermill.execute_notebook(
        source(kind),
        folder / "done.ipynb",
        values(kind),
        cwd=str(source(kind).parent),
        progress_bar=False,
        log_output=False,
    )
    return nbformat.read(folder / "done.ipynb", 4)


def under_jupyter_execute(kind, folder):
    """It takes no parameters: they are written into a copy of the notebook."""
    notebook = nbformat.read(source(kind), 4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source = "\n".join(f"{name} = {value!r}" for name, value in values(kind).items())
    nbformat.write(notebook, folder / "alone.ipynb")
    execute = (
        sys.executable,
        "-c",
        "from nbclient.cli import main; main()",
    )  # what jupyter execute starts
    subprocess.run(
        [*execute, "--inplace", str(folder / "alone.ipynb")],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return nbformat.read(folder / "alone.ipynb", 4)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The records that the command makes of the tiny study."""
    outputs = tmp_path_factory.mktemp("command")
    done = dwlt(outputs, "run", TINY, "--executor", "inline", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    return contents(outputs)


@pytest.mark.parametrize(
    "way", [under_papermill, under_jupyter_execute], ids=lambda way: way.__name__
)
def test_every_compute_notebook_makes_the_records_that_the_command_makes(
    way, command, tmp_path, monkeypatch
):
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("DWLT_OUTPUTS", str(outputs))
    for kind in ASKED:
        before = set(contents(outputs))
        done = way(kind, tmp_path)
        made = contents(outputs)
        assert set(made) == before | wanted(kind), kind
        assert made == {id: command[id] for id in made}, kind
        assert len(json.dumps(done)) < 600_000, "a curve that grows leaves its last state only"
        kept = sum(
            output.output_type == "error"
            for cell in done.cells
            for output in cell.get("outputs", [])
        )
        assert kept == 0


def test_the_same_parameters_make_nothing_and_others_a_new_record(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    for pretraining, there in (("STD", 1), ("STD", 1), ("FAT", 2)):
        monkeypatch.setitem(ASKED, "pretrain", {**ASKED["pretrain"], "pretraining": pretraining})
        under_papermill("pretrain", tmp_path)
        assert len(contents(tmp_path / "outputs")) == there


def test_default_parameters_are_what_a_job_takes():
    for kind, (name, fields) in NOTEBOOKS.items():
        found = papermill.inspect_notebook(str(store.checkout() / "notebooks" / f"{name}.ipynb"))
        assert list(found) == ["params", *fields, "device"], kind
        assert all(one["help"] and one["inferred_type_name"] != "None" for one in found.values())


def test_a_curve_is_drawn_anew_in_one_place_and_a_new_training_begins_a_new_one(monkeypatch):
    from dwlt_lib.execution import progress
    from dwlt_lib.plotting import figures

    drawn, shown = [], []

    class Handle:
        def update(self, figure):
            shown.append(figure)

    monkeypatch.setattr(
        figures, "training_curve", lambda rows: drawn.append(list(rows)) or len(drawn)
    )
    monkeypatch.setattr(
        "IPython.display.display", lambda figure, display_id: shown.append("first") or Handle()
    )
    monkeypatch.setattr(progress, "SHARE", 1e9)
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(progress, "time", SimpleNamespace(time=lambda: float(next(clock))))
    show = progress.live()
    for epoch in (1, 2, 1):
        show({"epoch": epoch, "loss": 1.0})
    assert [len(rows) for rows in drawn] == [1, 2, 1] and shown == ["first", 2, 3]
