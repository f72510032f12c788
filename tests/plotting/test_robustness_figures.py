"""Figures of strong attacks show the means of their records, panel by panel."""

import pytest
from figure_tables import robustness_records, texts

from dwlt_lib.plotting import robustness


def test_a_panel_per_curve_has_a_line_per_attack_and_ra_beside_the_worst_case():
    table, _ = robustness_records(["STD", "AT"], ["IMP-ST", "RP"])
    fig = robustness.by_attack(table)
    drawn = [ax for ax in fig.axes if ax.axison]
    assert [ax.get_title().split(", ")[-1] for ax in drawn] == ["IMP-ST", "RP"] * 2
    lines = {line.get_label(): line.get_ydata() for line in drawn[0].get_lines()}
    lines = {label: y for label, y in lines.items() if label[0] != "_"}  # without the break's mark
    names = ["RA", "PGD-50x10", "APGD-CE", "APGD-T", "Square", "worst case"]
    assert list(lines) == names
    own = table[(table["pretraining"] == "AT") & table["method"].isin(["dense", "IMP-ST"])]
    for name in names:
        means = own.groupby("rounds")["worst" if name == "worst case" else name].mean()
        assert lines[name] == pytest.approx(100 * means.to_numpy())


def test_security_curves_are_means_over_seeds_a_row_per_pretraining():
    table, read = robustness_records(["STD", "AT"], ["IMP-ST"])
    fig = robustness.security_curves(table, read)
    assert len(fig.axes) == 4
    for ax, x, y in zip(fig.axes, ("eps_factors", "steps"), ("eps_RA", "steps_RA"), strict=False):
        own = table[(table["pretraining"] == "AT") & (table["rounds"] == 0)]
        arrays = [read(id).arrays() for id in own["id"]]
        black = next(line for line in ax.get_lines() if line.get_color() == "black")
        assert black.get_xdata() == pytest.approx(arrays[0][x])
        assert black.get_ydata() == pytest.approx(100 * sum(a[y] for a in arrays) / len(arrays))
    said = texts(fig)
    assert "dense" in said and "IMP-ST 73.8 %" in said


def test_without_records_they_say_so():
    table, read = robustness_records()
    for fig in (robustness.by_attack(table.iloc[:0]), robustness.security_curves(table[:0], read)):
        assert "no records yet" in texts(fig)
