"""Figures at print size.

Text of 6 pt and more, nothing cut off or overlapping, roles that every eye tells apart.
"""

import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from figure_tables import (
    PARAMS,
    falls,
    landscape_records,
    mask_records,
    robustness_records,
    transfers,
)
from matplotlib.text import Text
from skimage.color import rgb2lab

from dwlt_lib.analysis import mask_patterns
from dwlt_lib.config.specs import CONTROLS, OTHER_METHODS, SHUFFLED, TRANSPLANTED
from dwlt_lib.plotting import figures, landscapes, robustness, study_overview, style
from dwlt_lib.plotting.style import COLUMN, PAGE, PRETRAININGS, ROLES

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
EYES = {
    "trichromat": np.eye(3),
    "protanope": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranope": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanope": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
    "grey print": [[0.2126, 0.7152, 0.0722]] * 3,
}
TOGETHER = [
    ("STD", "FAT", "AT", "RP"),  # Figures 3 and 5
    ("AT", "IMP-AT", "OMP", "RP"),  # Figure 4
    ("AT", *CONTROLS),
    ("AT", *OTHER_METHODS),
    ("IMP-AT", "OMP", "RP", SHUFFLED, TRANSPLANTED),  # masks between methods
]


def seen(color, eye):
    """CIE-Lab of a colour '#RRGGBB' as an eye sees it."""
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(EYES[eye]) @ linear, 0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(rgb[None, None])[0, 0]


@pytest.mark.parametrize("eye", [eye for eye in EYES if eye != "grey print"])
def test_roles_that_share_a_figure_are_25_apart_in_lab_to_every_eye(eye):
    for group in [*TOGETHER, tuple(figures.PAIRS)]:
        colors = {key: {**ROLES, **figures.PAIRS}[key][0] for key in group}
        near = {
            pair: np.linalg.norm(seen(colors[pair[0]], eye) - seen(colors[pair[1]], eye))
            for pair in combinations(group, 2)
        }
        assert min(near.values()) >= 25, min(near, key=near.get)


def test_roles_that_look_alike_in_grey_differ_in_marker_and_line():
    for group in TOGETHER:
        for p, q in combinations(group, 2):
            near = (
                np.linalg.norm(seen(ROLES[p][0], "grey print") - seen(ROLES[q][0], "grey print"))
                < 25
            )
            assert not near or (ROLES[p][1] != ROLES[q][1] and ROLES[p][2] != ROLES[q][2]), (p, q)


def every_figure():
    """Every figure of the paper, on one and on several data sets, and landscapes of one and of many
    panels.
    """
    table, alone = (
        transfers(methods=("IMP-ST", "IMP-AT", "OMP", "RP")),
        transfers(sets=("digits",), fractions=(1.0,)),
    )
    for some in (table, alone):
        yield from (figures.existence(some), figures.methods(some), figures.data_limited(some))
    yield figures.controls(transfers(methods=("IMP-ST", *CONTROLS)))
    yield figures.other_methods(transfers(methods=("IMP-ST", *OTHER_METHODS)))
    sets, methods = (
        ["cifar10", "cifar100", "svhn", "fmnist", "cub200", "dtd"],
        ["IMP-ST", "IMP-AT", "OMP", "RP"],
    )
    many = dict(
        PARAMS,
        grid=[dict(PARAMS["grid"][0], dataset=sets, fraction=[1.0, 0.1, 0.01], method=methods)],
    )
    yield from (study_overview.paradigm(PARAMS), study_overview.paradigm(many))
    for kind in ("surface", "trajectory"):
        found, read = landscape_records(kind)
        clean = found[found["images"] == "clean"]
        yield from (
            landscapes.contours(landscapes.panels(found, read)),
            landscapes.contours(landscapes.panels(clean, read)),
        )
        yield landscapes.contours(
            landscapes.side_by_side(found.assign(seed=range(len(found))), read)
        )
        yield landscapes.contours(landscapes.side_by_side(found.iloc[:1], read))
        yield landscapes.surfaces_3d(landscapes.panels(clean, read))
    yield from (figures.overfitting(falls()), figures.overfitting(falls(selects=False)))
    masks, load = mask_records()
    yield figures.similarity(mask_patterns.similarity_table(masks, load.get))
    kernels = mask_patterns.zero_kernel_table(masks, load.get)
    yield figures.zero_kernels(kernels)
    yield figures.kernel_maps(
        {p: mask_patterns.kernel_map(load[f"{p}10"]) for p in ("STD", "FAT", "AT")}
    )
    yield figures.training_curve(
        [dict(epoch=e, loss=1.0 / (e + 1), SA=0.9, RA=0.5) for e in range(5)]
    )
    attacked = pd.DataFrame(
        [
            dict(
                pretraining=p,
                method="IMP-ST",
                dataset="digits",
                fraction=1.0,
                rounds=r,
                seed=s,
                transfer_accuracy=0.8 + s / 50,
                RA=0.7,
            )
            for p in ("STD", "AT")
            for r in (0, 6, 14)
            for s in (0, 1)
        ]
    )
    yield figures.transfer_attack_curve(attacked)
    for pretrainings, methods in ((["AT"], ["IMP-ST"]), (["STD", "FAT", "AT"], ["IMP-ST", "RP"])):
        strong, read = robustness_records(pretrainings, methods)
        yield from (robustness.by_attack(strong), robustness.security_curves(strong, read))


@pytest.fixture(scope="module")
def drawn():
    return list(every_figure())


def shown(fig):
    """The texts that a figure draws.

    Titles, labels, ticks, colour bar, legend, numbers on lines.
    """
    unseen = set()  # of axes that are off; ticks beyond the axis
    for ax in fig.axes:
        for axis in ax._axis_map.values():
            low, high = sorted(axis.get_view_interval())
            ticks = [
                tick
                for tick in axis.get_major_ticks()
                if not ax.axison or not low <= tick.get_loc() <= high
            ]
            unseen |= {text for tick in ticks for text in tick.findobj(Text)}
            unseen |= set() if ax.axison else {axis.label}
    return [
        text
        for text in fig.findobj(Text)
        if text not in unseen and text.get_visible() and text.get_text().strip()
    ]


def test_text_is_6_pt_and_more_at_column_or_page_width(drawn):
    for fig in drawn:
        assert fig.get_figwidth() in (COLUMN, PAGE)
        assert min(text.get_fontsize() for text in shown(fig)) >= 6
        small = [text.get_text() for text in shown(fig) if "$" in text.get_text()]
        assert not small  # mathtext sets a subscript at 0.7 of the size


def outside(box, canvas):
    return (
        box.x0 < canvas.x0 - 1
        or box.y0 < canvas.y0 - 1
        or box.x1 > canvas.x1 + 1
        or box.y1 > canvas.y1 + 1
    )


def overlap(a, b):
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1


def test_no_text_leaves_the_canvas(drawn):
    for fig in drawn:
        for artist in [*shown(fig), *fig.legends]:
            box = artist.get_window_extent()
            assert not outside(box, fig.bbox), artist


def test_titles_labels_and_legends_do_not_overlap(drawn):
    for fig in drawn:
        boxes = {}
        parts = [
            fig._suptitle,
            *fig.legends,
            *(ax.title for ax in fig.axes),
            *(ax.xaxis.label for ax in fig.axes),
            *(ax.yaxis.label for ax in fig.axes if ax.name != "3d"),
        ]
        for part in parts:
            if part is not None and (not isinstance(part, Text) or part in shown(fig)):
                boxes[part] = part.get_window_extent()
        bad = [(a, b) for a, b in combinations(boxes, 2) if overlap(boxes[a], boxes[b])]
        assert not bad, bad


def test_tick_labels_of_an_axis_keep_apart(drawn):
    for fig in drawn:
        for ax in fig.axes:
            if ax.name != "3d":
                boxes = [
                    label.get_window_extent()
                    for label in ax.get_xticklabels()
                    if label in shown(fig)
                ]
                assert not any(overlap(a, b) for a, b in combinations(boxes, 2))


def test_each_role_keeps_its_colour_and_differs_in_grey_print():
    colours, _, lines = zip(*ROLES.values(), strict=True)
    assert len(set(colours)) == len(ROLES)
    for group in TOGETHER:  # there are fewer markers than roles
        assert len({ROLES[key].marker for key in group}) == len(group)
    assert len({str(line) for line in lines[:4]}) == 4
    fig = figures.existence(transfers())
    assert {line.get_color() for line in fig.axes[0].get_lines()} >= {
        ROLES[p][0] for p in (*PRETRAININGS, "RP")
    }


def test_saving_twice_writes_the_same_three_files(tmp_path):
    table = transfers(sets=("digits",), fractions=(1.0,))
    first, second = (
        style.save(figures.existence(table), tmp_path / part / "figure_03") for part in ("a", "b")
    )
    assert [file.name for file in first] == ["figure_03.pdf", "figure_03.svg", "figure_03.png"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_of_a_figure_without_records_no_file_is_saved_and_none_stays(tmp_path):
    table = transfers(sets=("digits",), fractions=(1.0,))
    style.save(figures.existence(table), tmp_path / "figure_03")
    style.save(figures.existence(table), tmp_path / "figure_04")
    assert style.save(figures.existence(table.iloc[:0]), tmp_path / "figure_03") == []
    assert {file.stem for file in tmp_path.iterdir()} == {"figure_04"}


def test_a_notebook_shows_a_figure_as_a_picture():
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
from dwlt_lib.plotting import style
shell.display_formatter.formatters["image/png"].lookup_by_type(style.Figure)  # or KeyError
"""
    env = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
