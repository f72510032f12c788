"""The report.

Verdict first, a figure with its finding and the paper's, nothing from records as markup.
"""

import base64
import html
import json
import re

import nbformat
import numpy as np
import pytest
from figure_tables import landscape_records, transfers
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from dwlt_lib import report
from dwlt_lib.analysis import noninferiority
from dwlt_lib.analysis.contrasts import CRITERIA
from dwlt_lib.config import planning
from dwlt_lib.config.studies import Margins
from dwlt_lib.plotting import figures, landscapes, style, verdicts
from dwlt_lib.records import store
from dwlt_lib.report import chapters, study_tables, summary

EVIL = "<script>alert('x')</script>"
MADE = {
    "seconds": 90.0,
    "gmac": 450.0,
    "code": f"0.1 {EVIL}",
    "torch": "2",
    "python": "3",
    "device": "cpu",
    "threads": 2,
    "made": "2026-01-01T10:00:00Z",
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def cell(source, *outputs):
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": ["report"]})


def prose(source):
    return new_markdown_cell(source, metadata={"tags": ["report"]})


def picture():
    return new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"})


def said(text):
    return new_output("stream", name="stdout", text=text)


def write_notebook(study, name, *cells):
    path = store.study_dir(study) / "notebooks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), path)


def finished(study):
    """A planned study with all its records, their numbers made up."""
    store.write_study(study)
    for i, spec in enumerate(planning.plan(study).values()):
        store.write(spec, {"SA": 0.9, "RA": 0.5 + i / 1000}, [], {}, MADE)
    return study.name


def figures_of(study):
    """Notebooks with a figure of each width, saved as notebooks save them.

    Returns the texts under them.
    """
    folder, table = store.study_dir(study) / "figures", transfers()
    found, read = landscape_records("surface")
    drawn = {
        "figure_03_existence": (figures.existence(table), "A finding.\nIts second line."),
        "figure_03_alone": (
            figures.existence(table[table["dataset"] == "digits"]),
            "One data set.",
        ),
        "figure_02_surfaces": (landscapes.surfaces_3d(landscapes.panels(found, read)), "Surfaces."),
    }
    for i, (name, (figure, text)) in enumerate(drawn.items()):
        style.save(figure, folder / name)
        guide = prose(
            f"# {i}. A question\n\n## Figure\n\nA guide.\n\n**What the paper found** (section"
            " 4). So."
        )
        saving = f'style.save(figure, folder / "{name}")'
        write_notebook(
            study, f"1{i}_figure.ipynb", guide, cell(saving, picture()), cell("print()", said(text))
        )
    return [text for _, text in drawn.values()]


def test_what_was_run_and_the_answer_come_first(outputs, toy):
    page = report.build(finished(toy())).read_text()
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page, re.S))
    assert facts["Network"] == "resnet8" and facts["Source"] == "blobs"
    assert facts["Tasks"] == "stripes (100, 50 %)" and facts["Attack"].endswith("eps 0.1")
    assert "2026-01-01" in facts["Effort"]
    levels = noninferiority.noninferiority(store.table("transfer", study="toy"))
    said = [
        html.unescape(text) for text in re.findall(r"<strong>How sparse\?</strong> (.*?)</p>", page)
    ]
    assert said == [each.how_far for each in summary.answers(levels, [])]
    assert html.escape(summary.certainty(levels, None, Margins())) in page
    parts = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert parts == [
        "The answer",
        "Explore",
        "The paper's claims",
        "Verdicts",
        "Parameters",
        "Cost and versions",
        "Failures",
    ]


def test_the_explorer_has_every_accuracy_of_the_table(outputs, toy):
    page = report.build(finished(toy())).read_text()
    (text,) = re.findall(r'id="explorer-data">(.*?)</script>', page)
    table = store.table("transfer", study="toy").set_index("id")
    found = {}
    for share in json.loads(text):
        for curve in share["curves"]:
            for point in curve["points"]:
                for criterion, (_, metric) in CRITERIA.items():
                    ids = point[criterion]["ids"]
                    values = 100 * table.loc[ids, metric]
                    if ids:
                        assert point[criterion]["mean"] == pytest.approx(values.mean(), abs=0.006)
                    assert len(ids) == point[criterion]["seeds"]
                    found |= dict.fromkeys(ids)
    assert set(found) == set(table.index)


def comparison(difference, low, high):
    return summary.Comparison("digits", "AT", "STD", difference, (low, high))


@pytest.mark.parametrize(
    ("compared", "said"),
    [
        (comparison(0.05, 0.01, 0.09), "AT before STD by 5.0 [1.0, 9.0] points"),
        (
            comparison(0.05, -0.01, 0.11),
            "AT and STD cannot be told apart (5.0 [-1.0, 11.0]) points",
        ),
        (
            comparison(0.05, np.nan, np.nan),
            "cannot be told apart (5.0, its noise not known) points",
        ),
    ],
)
def test_a_pre_training_is_before_another_only_if_its_bounds_exclude_zero(compared, said):
    levels = noninferiority.noninferiority(transfers())
    (first, *_) = [each.which for each in summary.answers(levels, [compared]) if each.which]
    assert said in first


def test_a_chapter_and_a_figure_without_records_are_left_out(outputs, toy):
    name = finished(toy())
    folder = store.study_dir(name) / "figures"
    style.save(figures.existence(transfers().iloc[:0]), folder / "figure_03_existence")
    saving = cell('style.save(figure, folder / "figure_03_existence")', picture())
    no_rows = transfers().iloc[:0][["SA"]]._repr_html_()
    table = cell("networks", new_output("display_data", {"text/html": no_rows}))
    write_notebook(name, "11_empty.ipynb", prose("# 11. Nothing\n\nA guide."), saving, table)
    page = report.build(name).read_text()
    assert "A guide." not in page and "no records for: 11. Nothing." in page
    assert "<img" not in page


def test_cost_is_core_time_and_arithmetic_by_kind(outputs, toy):
    page = report.build(finished(toy())).read_text()
    count = len(store.study("toy")["ids"])
    total = [
        count,
        f"{180 * count // 3600} h {180 * count % 3600 // 60:02d} min",
        f"{450 * count:,}",
    ]
    row = "".join(rf"\s*<td>{cell}</td>" for cell in ["in all", *total])
    assert re.search(row, page)
    assert "None: no notebook ended in an error." in page


def test_nothing_from_records_or_notebooks_is_markup(outputs, toy, monkeypatch):
    study = toy(title=f"A title {EVIL}")
    finished(study)
    name = "toy"
    write_notebook(
        name,
        "11_evil.ipynb",
        prose(f"# Title {EVIL}\n\n**What the paper found** {EVIL} <img src=x>."),
        cell("1", picture()),
        cell("2", said(f'said {EVIL}" onload="x')),
        cell(
            "3",
            new_output(
                "display_data", {"text/html": f"<table onclick='x'><td>{EVIL}</td></table>"}
            ),
        ),
    )
    error = new_output("error", ename="ValueError", evalue=f"no {EVIL}", traceback=[])
    write_notebook(name, "12_failed.ipynb", prose("# Failed"), cell("1", error))
    verdict = study_tables.verdict
    table = transfers().assign(dataset=EVIL, pretraining="AT")
    monkeypatch.setattr(study_tables, "verdict", lambda _, *more: verdict(table, *more))
    page = report.build(name).read_text()
    assert f"<td>{html.escape(EVIL, quote=False)}, 100 %</td>" in page
    assert "<script>alert" not in page and "onclick" not in page and "<img src=x" not in page
    assert (
        'onload="x' not in page and "A title &lt;script&gt;" in page and "no &lt;script&gt;" in page
    )


def test_mathematics_is_mathml_and_no_way_in_for_markup():
    shown = chapters._markdown(
        rf"$\theta_{{\mathrm{{AT}}}}$, `$m$`, $$1 - 0.8^k$$, $\text{{{EVIL}}}$"
    )
    theta, power, text = re.findall(r"<math.*?</math>", re.sub(r"\s", "", shown))
    assert theta == "<math><msub><mi>θ</mi><mi>AT</mi></msub></math>"
    assert "<msup><mn>0.8</mn><mi>k</mi></msup>" in power and "<code>$m$</code>" in shown
    assert "<script" not in text and "&lt;script" in text
    assert chapters._markdown(rf"$\unknown{EVIL}$").count("<code>\\unknown&lt;script&gt;") == 1


def test_a_term_is_explained_where_a_chapter_first_uses_it_but_not_in_code_or_formulas():
    said = set()
    text = chapters._markdown(
        "`RA`, $\\mathrm{RA}$: RA's fall, RA, IMP-ST-shuffled, IMP-ST and SA."
    )
    shown = chapters._explained(text, said)
    terms = re.findall(r'<abbr title="[^"]+" tabindex="0">([^<]+)</abbr>(.{4})', shown)
    assert terms == [("RA", "'s f"), ("IMP-ST", " and"), ("SA", ".</p")]
    assert "<code>RA</code>" in shown and said == {"RA", "IMP-ST", "SA"}
    assert chapters._explained(text, said) == text


def test_a_figure_carries_its_finding_and_then_the_papers(outputs, toy):
    name = finished(toy())
    texts = figures_of(name)
    page = report.build(name).read_text()
    assert page.count("<figure>") == 3
    below = re.findall(r'<div class="found">(.*?)</div>\s*<div class="paper">', page, re.S)
    assert ["\n".join(re.findall("<li>(.*)</li>", said)) for said in below] == texts
    looks = re.findall(
        r'<img class="(\w+)" alt="[^"]*" src="data:image/(\S+?);base64,([^"]+)"', page
    )
    assert [look for look, *_ in looks] == ["page", "column", "page"]
    assert looks[0][1] == "svg+xml" and b"<!--" not in base64.b64decode(looks[0][2])


def test_a_heavy_drawing_comes_as_a_picture_of_pixels(outputs, toy, monkeypatch):
    name = finished(toy())
    figures_of(name)
    monkeypatch.setattr(chapters, "MAX_SVG", 1000)
    assert "image/svg+xml" not in report.build(name).read_text()


def test_a_study_without_records_has_a_report_that_says_so(outputs, toy):
    store.write_study(toy())
    page = report.build("toy").read_text()
    assert (
        verdicts.NOTHING in page
        and "explorer" not in page.partition("</style>")[2]
        and "No record has been made yet." in page
        and "are missing" in page
    )


@pytest.mark.parametrize(
    "path",
    sorted((store.checkout() / "notebooks").glob("1[1-8]_*.ipynb")),
    ids=lambda path: path.stem,
)
def test_beside_every_figure_stands_the_papers_finding_and_only_findings_are_printed(path):
    cells = [c for c in nbformat.read(path, 4).cells if "report" in c.metadata.get("tags", [])]
    sources = [cell.source for cell in cells]
    shown = [i for i, source in enumerate(sources) if "style.save" in source]
    assert shown
    for i in shown:
        assert "**What the paper found**" in sources[i - 1], sources[i]
        said = sources[i + 1] if i + 1 < len(sources) else ""
        if said.startswith("print("):
            assert re.search(r"of_figure|in_words|count_claims", said), said


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (61, "1 min 01 s"), (3725, "1 h 02 min")]
)
def test_durations_are_read_at_a_glance(seconds, text):
    assert study_tables.duration(seconds) == text
