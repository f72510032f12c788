"""What the tests share.

One torch thread, results in a scratch folder, and a study small enough to make in seconds.
"""

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest
import seeds
import torch
import yaml

from dwlt_lib.config import parameter_file
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.planning import plan
from dwlt_lib.config.recipes import TrainingConfig
from dwlt_lib.data import batches, fingerprints
from dwlt_lib.execution import inputs, make
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks
from dwlt_lib.records import store
from dwlt_lib.training import trainer

TOY = {
    "name": "toy",
    "arch": "resnet8",
    "source": "blobs",
    "evaluation_steps": 2,
    "pretraining": {
        p: {"epochs": 2, "batch": 32, "lr": 0.1, "schedule": "one_cycle"}
        for p in ("STD", "FAT", "AT")
    },
    "retraining": {
        m: {"epochs": 1, "batch": 32, "lr": 0.02, "steps": 2} for m in ("IMP-ST", "IMP-AT")
    },
    "transfer": {
        r: {
            "epochs": 3,
            "batch": 32,
            "lr": 0.1,
            "schedule": "one_cycle",
            "steps": 2,
            "selection": selection,
        }
        for r, selection in (("ST", "last"), ("AT", "best"))
    },
    "grid": [
        {
            "pretraining": ["AT"],
            "method": ["IMP-ST"],
            "dataset": ["stripes"],
            "rounds": [2],
            "seeds": [0],
        },
        {
            "pretraining": ["AT"],
            "method": ["RP", "OMP"],
            "dataset": ["stripes"],
            "regime": ["ST"],
            "fraction": [0.5],
            "rounds": [3],
            "seeds": [0],
        },
    ],
    "landscape": {"points": 7, "span": 0.5, "count": 24},
    "landscapes": [
        {
            "pretraining": ["AT"],
            "method": ["IMP-ST"],
            "dataset": ["stripes"],
            "rounds": [2],
            "seeds": [0],
        }
    ],
    "surrogate": {"arch": "resnet20", "recipe": {"epochs": 1}},
    "transfer_attacks": [
        {
            "pretraining": ["AT"],
            "method": ["IMP-ST"],
            "dataset": ["stripes"],
            "rounds": [0, 2],
            "seeds": [0],
        }
    ],
}


def images_of_three_classes(n, seed, angle):
    """n grey 8x8 images.

    A bright bar that lies differently in each class, under noise, and their labels.
    """
    rng = seeds.numpy_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(90, 40, (n, 8, 8))
    for i, label in enumerate(y):
        bar = np.zeros((8, 8))
        bar[2 * label + 1 : 2 * label + 3] = 90
        x[i] += bar.T if angle else bar
    return x.clip(0, 255).astype(np.uint8), y


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread():
    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """What a fixture draws depends on DWLT_TEST_SEED alone, not on the tests before it."""
    seeds.set_global()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    """What a test draws does not depend on which of its fixtures were there already, either."""
    seeds.set_global()


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """DWLT_OUTPUTS of this test alone."""
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    """Rows of two small data sets of generated files.

    Blobs (lying bars) and stripes (standing bars).
    """
    folder = tmp_path_factory.mktemp("images")
    for angle, name in enumerate(("blobs", "stripes")):
        for split, n in (("train", 180), ("test", 60)):
            x, y = images_of_three_classes(n, 10 * angle + (split == "test"), angle)
            np.savez(folder / f"{name}_{split}.npz", images=x, labels=y)
    return {
        name: {
            "loader": "npz",
            "classes": 3,
            "size": 8,
            "eps": 0.1,
            "alpha": 0.05,
            "train_images": 180,
            "test_images": 60,
            "path": str(folder / (name + "_{split}.npz")),
        }
        for name in ("blobs", "stripes")
    }


@pytest.fixture(scope="session")
def toy(toy_data):
    """toy(**changes): the tiny Study, with whole settings of its file replaced."""

    def study(**changes):
        settings = copy.deepcopy({**TOY, "data": toy_data, **changes})
        return fingerprints.resolve_fingerprints(
            parameter_file.parse(yaml.safe_dump(settings), "toy.yaml"), {}
        )

    return study


@pytest.fixture
def ladders(toy):
    """A study of nine levels, three seeds and two methods."""
    grid = [
        {
            "pretraining": ["STD", "AT"],
            "method": ["IMP-ST", "RP"],
            "dataset": ["stripes"],
            "seeds": [0, 3, 5],
            "rounds": list(range(1, 9)),
        }
    ]
    return toy(grid=grid)


@pytest.fixture(scope="session")
def toy_records(toy, tmp_path_factory):
    """(study, outputs): the whole toy study, made once, validated on 18 images."""
    folder, study = tmp_path_factory.mktemp("toy_records"), toy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DWLT_OUTPUTS", str(folder))
        patch.setattr(inputs, "ENOUGH", 8)
        store.write_study(study)
        for spec in reversed(plan(study).values()):  # last first: what it builds on is made too
            make.make(spec)
    return study, folder


@pytest.fixture
def made(toy_records, monkeypatch):
    """The toy study, whose records are there; not to be changed."""
    study, folder = toy_records
    monkeypatch.setenv("DWLT_OUTPUTS", str(folder))
    monkeypatch.setattr(inputs, "ENOUGH", 8)
    return study


@pytest.fixture(scope="session")
def digits():
    """300 training images of digits."""
    return batches.load_images("digits", "train").take(torch.arange(300))


def without_kinks(model):
    """The network, its every ReLU now shut or open by far: no rounding moves one, so that gradients
    are smooth.

    Each channel's BatchNorm adds 12 to what it has made of unit variance, or takes 12 from it, and
    a shortcut adds like to like. This holds in train mode, and in eval mode for the like of the
    images that the statistics come from.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.bias.data.fill_(12)[1::2] = -12
    return model


@pytest.fixture
def net():
    """net(seed, ...): a fresh ResNet-8 for digits."""

    def build(seed=0, classes=10, arch="resnet8", row=CATALOGUE["digits"]):
        seeds.set_global(seed)
        return architectures.build(arch, classes, row.mean, row.std)

    return build


@pytest.fixture(scope="session")
def trained():
    """A ResNet-8 that reads digits well, and nothing else.

    (state, test images (640,3,8,8), labels).
    """
    seeds.set_global()
    model = architectures.build("resnet8", 10, CATALOGUE["digits"].mean, CATALOGUE["digits"].std)
    how = TrainingConfig(
        epochs=3, batch=64, lr=0.1, schedule="one_cycle", momentum=0.9, weight_decay=5e-4
    )
    dense = masks.dense_mask(architectures.prunable(model))
    found = trainer.fit(
        model, dense, batches.load_images("digits", "train"), None, how, seeds.of(0)
    )
    test = batches.load_images("digits", "test")
    return found.last, test.floats(), test.y


# ------------------------------------------------------------------------------------- servers and
# a browser

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
DWLT = (sys.executable, "-c", "from dwlt_lib.cli.main import main; main()")
BUSY = min(5.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))  # how many want each core
# make test-faults runs a battery of faults whole, make test a part of it
FAULTS = os.environ.get("DWLT_FAULTS") == "full"
STARTING = 180  # seconds that a server, a first paint or a kernel may take on a busy machine
STEP = 120  # and that whatever follows may; a page that is broken fails at once (`wait_for`)
FIRST = {"timeout": 1000 * STARTING}  # for a wait that includes a start


# what a page shows instead of what is waited for
ERRORS = (
    '[data-mime-type="application/vnd.jupyter.error"], [data-card="problem"],'
    ' pre:has-text("There was an error when executing cell")'
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)


def wait_for(page, selector, state="visible"):
    """Waits until the page shows an element; an error text in its place fails at once."""
    errors = page.locator(ERRORS)
    either = page.locator(selector).first.or_(errors.first).first
    either.wait_for(state=state, timeout=1000 * STARTING)
    assert errors.count() == 0, errors.all_inner_texts()


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium (playwright), the machine's own.

    Its pages wait STEP before they give up.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with (
        sync_api.sync_playwright() as playwright
    ):  # not for the whole session: its event loop runs until it ends
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=list(FLAGS)
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """page(width=1280, height=900).

    A page of its own, whose `.problems` are the console's errors so far.
    """
    contexts = []

    def new(width=1280, height=900):
        context = chromium.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True
        )
        context.set_default_timeout(1000 * STEP)
        context.set_default_navigation_timeout(1000 * STARTING)
        contexts.append(context)
        found = context.new_page()
        found.problems = []
        found.on("pageerror", lambda error: found.problems.append(str(error)))
        found.on(
            "console",
            lambda line: (
                found.problems.append(f"{line.text} ({line.location.get('url', '')})")
                if line.type == "error"
                else None
            ),
        )
        return found

    yield new
    for context in contexts:
        context.close()


def _heed_ctrl_c():
    """In a server's process.

    A shell may have started the tests in the background, with interrupts ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def serve():
    """serve("lab", ..., cwd=None, **environment): starts `dwlt lab ...`; (URL, process).

    All end with the module.
    """
    started = []

    def start(*arguments, cwd=None, **environment):
        log = tempfile.TemporaryFile("w+")
        process = subprocess.Popen(
            [*DWLT, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            preexec_fn=_heed_ctrl_c,
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        started.append((process, log))
        late = threading.Timer(STARTING, process.kill)
        late.start()
        for line in process.stdout:
            if found := re.search(r"https?://\S+", line):
                late.cancel()
                return found[0], process
        log.seek(0)
        raise AssertionError(f"{arguments}: no URL; {log.read()[-2000:]}")

    yield start
    for process, log in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        log.close()
