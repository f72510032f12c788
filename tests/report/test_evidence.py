"""Theorems on the paper's claims as a study's records, its report and the pages tell them."""

import html

import pytest
from generate import records_of
from typer.testing import CliRunner

from dwlt_lib import report
from dwlt_lib.analysis import claims
from dwlt_lib.cli.main import app
from dwlt_lib.config.studies import Margins
from dwlt_lib.plotting import verdicts
from dwlt_lib.records import store
from dwlt_lib.report import summary


@pytest.fixture
def reference(tmp_path, monkeypatch):
    """The committed study alone, whatever has been made here."""
    reference = tmp_path / "outputs" / "reference"
    reference.mkdir(parents=True)
    (reference / "tour_full.zip").symlink_to(
        store.checkout() / "outputs" / "reference" / "tour_full.zip"
    )
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))


@pytest.fixture
def committed(reference):
    """Its claims."""
    margins = Margins(**store.study("tour_full")["params"].get("margins", {}))
    return report.judge_claims(store.table(study="tour_full"), margins)


def test_the_findings_have_the_verdict_of_the_committed_study(reference):
    printed = CliRunner().invoke(app, ["verdict", "params/tour_full.yaml", "--markdown"])
    findings = store.checkout() / "docs" / "explanation" / "findings.md"
    remedy = "put what this prints there: dwlt verdict params/tour_full.yaml --markdown"
    assert printed.stdout.strip() in findings.read_text(encoding="utf-8"), remedy


def test_the_findings_have_the_claims_of_the_committed_study(committed):
    findings = store.checkout() / "docs" / "explanation" / "findings.md"
    remedy = "put what this prints there: dwlt claims params/tour_full.yaml --markdown"
    assert claims.as_markdown(committed) in findings.read_text(encoding="utf-8"), remedy


def test_masks_basins_and_transfer_attacks_of_a_study_reach_their_claims(committed):
    told = committed.groupby("about")["n"].max()
    assert (told[["landscape", "mask", "attack", "pre-training", "method"]] > 0).all()


def test_a_figures_finding_has_its_curves_and_its_claims_and_no_others(committed):
    found = report.findings("tour_full")
    assert found.claims.equals(committed)
    for figure in sorted(set(committed["figure"])):
        own = committed[committed["figure"] == figure]
        decided = own[own["verdict"] != claims.OPEN]
        lines = found.of_figure(figure).splitlines()
        assert [line for line in lines if line in set(committed["sentence"])] == list(
            decided["sentence"]
        )
        left = [line for line in lines if "cannot be told from these records" in line]
        assert len(left) == (len(decided) < len(own))
        assert all(f"{len(own) - len(decided)} of {len(own)} " in line for line in left)
    assert "AT by RP" in found.of_figure("3") and "STD by RP" not in found.of_figure("3")
    assert "AT by OMP" in found.of_figure("4") and "STD" not in found.of_figure("4")
    assert "IMP-ST-shuffled" in found.of_figure("controls")
    assert "AT by OMP" not in found.of_figure("other methods")
    assert "1 % of digits" in found.of_figure("5") and "1 % of" not in found.of_figure("3")
    assert found.of_figure("A10").startswith(verdicts.NOTHING)


def test_the_report_counts_the_claims(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    records_of(toy())
    page = html.unescape(report.build("toy").read_text(encoding="utf-8"))
    found = report.judge_claims(store.table(study="toy"))
    levels = report.findings("toy").levels
    assert summary.certainty(levels, found, Margins()) in page
    decided = found[found["verdict"] != claims.OPEN]
    assert f"records ({len(found) - len(decided)})</summary>" in page
    for name in decided["number"]:
        assert f"<td>{name}</td>" in page


def test_a_damaged_mask_leaves_a_report_that_says_so(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    records_of(toy())
    for file in tmp_path.glob("records/mask/*/mask.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    page = html.unescape(report.build("toy").read_text(encoding="utf-8"))
    assert "The paper's claims are not judged: " in page and "mask.safetensors" in page
