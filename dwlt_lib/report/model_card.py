"""A ticket to share: a folder with its weights and mask, and a card that says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from dwlt_lib import files
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.network_names import is_module
from dwlt_lib.plotting.style import dataset_name, percent
from dwlt_lib.pruning import tickets
from dwlt_lib.records import store
from dwlt_lib.records.record import Record


def share(record_id: str, folder: str | Path, place: str | None = None) -> Path:
    """Write a transferred ticket as a folder in the form that the Hugging Face hub takes.

    It holds `ticket.safetensors`, which `pruning.load_ticket` reads, and `README.md`, the card:
    what it is, from which theta_p, how accurate, under which attacks, its licence, how to load it.

    Args:
        record_id: the id of a transfer whose weights were kept.
        folder: where to write; it may be there.
        place: what users give to `load_ticket`, such as "org/name"; None: the folder.

    Returns:
        The folder.

    Raises:
        KeyError: there is no such record.
        ValueError: one line: it is no transfer, kept no weights, or is damaged.
    """
    record, folder = store.read(record_id), Path(folder)
    if record.kind != "transfer":
        raise ValueError(f"record {record.id} is a {record.kind}; want a transfer")
    files.check(folder)
    tickets.export_ticket(record, folder / tickets.TICKET_FILE)
    files.write(folder / "README.md", _card(record, place or str(folder)))
    return folder


def push(folder: Path, repository: str) -> str:
    """Upload a folder of `share` to the Hugging Face hub.

    Args:
        folder: the folder.
        repository: "org/name"; it is made if it is not there.

    Returns:
        Its address.

    Raises:
        ValueError: one line: the package huggingface_hub is not there, or the hub refuses.
    """
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ValueError("no package huggingface_hub; pip install huggingface_hub") from error
    try:
        hub = huggingface_hub.HfApi()
        hub.create_repo(repository, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=str(folder))
    except Exception as error:  # its errors have no common root
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{repository}: {type(error).__name__}: {reason}") from error
    return f"https://huggingface.co/{repository}"


def _card(record: Record, place: str) -> str:
    from dwlt_lib.report.page import TEMPLATES

    columns, data = record.columns, record.spec["data"]
    about, attack = record.spec, record.spec["evaluation"]
    name, share_of = dataset_name(data["name"]), 100 * about["fraction"]
    ticket = f"theta_{columns['pretraining']}, {columns['method']}"
    source = dataset_name(about["theta"]["data"]["name"])
    facts = [
        ("Pre-training", f"{columns['pretraining']} on {source}"),
        ("Mask", columns["method"] if columns["rounds"] else "none: the dense network"),
        ("Transfer", f"{columns['regime']} on {share_of:g} % of {name}, seed {columns['seed']}"),
        ("Classes", data["classes"]),
    ]
    row, arch = CATALOGUE.get(data["name"]), about["theta"]["arch"]
    where, needs = f'"{place}"', "torch, safetensors and lazy_loader"
    if is_module(arch):
        where, needs = f"{where}, arch={arch!r}", f"{needs}, and {arch.partition(':')[0]}"
    elif "/" in arch:
        needs = f"{needs}, and {arch.partition('/')[0]}"
    return TEMPLATES.get_template("model_card.md.j2").render(
        title=f"{ticket} at {percent(record.metrics['sparsity'])} % sparsity on {name}",
        licence=row.licence if row else "unstated",
        dataset=data["name"],
        arch=arch,
        kept=percent(1 - record.metrics["sparsity"], " %"),
        sparsity=percent(record.metrics["sparsity"]),
        facts=facts,
        accuracies=_accuracies(record),
        where=where,
        needs=needs,
        size=data["size"],
        eps=attack["eps"],
        alpha=attack["alpha"],
        record=record.id,
        code=record.made.get("code", "not known"),
    )


def _accuracies(record: Record) -> list[dict[str, Any]]:
    """Of clean images, of those that PGD attacked and of every strong attack that was tried."""
    attack = record.spec["evaluation"]
    names = {"SA": "as they are", "RA": f"attacked by PGD-{attack['steps']}, eps {attack['eps']:g}"}
    rows = []
    outcomes = store.outcomes(record)
    worst = outcomes.pop("worst")
    if outcomes.keys() > {"SA", "RA"}:  # further attacks were tried
        outcomes["worst"] = worst
    for name, right in outcomes.items():
        count, images = int(right.sum()), len(right)
        interval = binomtest(count, images).proportion_ci(method="wilson")
        known = {"worst": "the worst of all attacks tried"} | names
        rows.append(
            {
                "name": known.get(name, f"attacked by {name}"),
                "percent": percent(count / images),
                "images": images,
                "low": percent(interval.low),
                "high": percent(interval.high),
            }
        )
    return rows
