"""The one-page report of a study: its answer, then what its executed figure notebooks show.

It is one file and needs no network. Whatever comes from records or notebooks is escaped or
sanitised: names and texts are data, never markup.
"""

import re
import warnings
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from dwlt_lib import __version__, files
from dwlt_lib.analysis import noninferiority
from dwlt_lib.analysis.contrasts import Evidence
from dwlt_lib.config.studies import Margins
from dwlt_lib.records import store
from dwlt_lib.report import chapters, study_tables, summary
from dwlt_lib.report.evidence import attacked_networks, judge_claims

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def build(study: str) -> Path:
    """Write a study's report from the records and executed notebooks that are there.

    Args:
        study: its name.

    Returns:
        The path of the page, outputs/studies/NAME/report.html.

    Raises:
        KeyError: one line, if no study of that name is planned here or committed.

    Example:
        >>> build("tour")
    """
    plan, folder = store.study(study), store.study_dir(study)
    params, missing = plan["params"], store.missing(study)
    damaged: list[str] = []  # records that cannot be read count as missing
    records = store.table(study=study, damaged=damaged)
    transfers = store.table("transfer", study=study, damaged=damaged)
    made = pd.DataFrame([store.read(id).made for id in records["id"]], index=records.index)
    notebooks = sorted((folder / "notebooks").glob("*.ipynb"))
    shown = [path for path in notebooks if re.match("00_tour|1[0-9]_", path.name)]
    parts = {path.stem: chapters.chapter(path, folder / "figures") for path in shown}
    of_claims = parts.pop("18_claims", None) or {"parts": []}
    with warnings.catch_warnings(action="ignore"):  # the page says it
        margins = Margins(**params.get("margins", {}))
        networks, claims, problem = None, None, ""
        try:
            claims = judge_claims(records, margins)
            networks = attacked_networks(records)
        except (KeyError, ValueError) as error:  # a file of a record is damaged
            problem = f"The paper's claims are not judged: {error.args[0]}"
        outcomes = store.outcomes_of(transfers)
        confidence = noninferiority.confidence_of(params.get("search", "grid"))
        levels = noninferiority.noninferiority(transfers, outcomes, margins, confidence)
        verdict = study_tables.verdict(transfers, levels, margins, networks)
        comparisons = summary.compare(Evidence(transfers, outcomes, margins))
    page = TEMPLATES.get_template("report.html.j2").render(
        title=params.get("title") or f"Study {study}",
        study=study,
        version=__version__,
        glossary=chapters.GLOSSARY,
        facts=summary.facts(params, records, made),
        answers=summary.answers(levels, comparisons),
        certainty=summary.certainty(levels, claims, margins),
        confidence=summary.CONFIDENCE,
        curves=summary.explorer(levels, transfers),
        decided=study_tables.claims(claims, is_decided=True),
        undecided=study_tables.claims(claims, is_decided=False),
        problem=problem,
        found=len(records),
        planned=len(plan["ids"]),
        missing=missing,
        where=store.published_source(study),
        verdict=verdict,
        forest=[content for kind, content in of_claims["parts"] if kind == "figure"][:1],
        chapters=[part for part in parts.values() if part and part["is_shown"]],
        left_out=[part["title"] for part in parts.values() if part and not part["is_shown"]],
        parameters=study_tables.as_yaml(params),
        cost=study_tables.cost(records, made),
        versions=study_tables.versions(made),
        failures=chapters.failures(folder / "notebooks", missing > 0),
    )
    target = folder / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    return files.write(target, page)


def _table(table: pd.DataFrame, classes: str) -> Markup:
    """A table as HTML; pandas escapes everything in it."""
    with pd.option_context("display.max_colwidth", None):
        return Markup(table.to_html(index=False, border=0, na_rep="–", classes=classes))


TEMPLATES.filters["table"] = _table
