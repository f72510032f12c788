"""The commands `dwlt weights ...`: official pre-trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dwlt_lib.cli.options import downloading
from dwlt_lib.cli.refusal import refuse

app = typer.Typer(
    no_args_is_help=True, help="Official pre-trained weights: fetch them, take them in safely."
)


@app.command(
    "import", epilog="Example: dwlt weights import resnet50.pth --as std --out std.safetensors"
)
def import_(
    file: Annotated[Path, typer.Argument(help="an official checkpoint; nothing in it is ever run")],
    source: Annotated[
        Literal["std", "at", "fat"],
        typer.Option("--as", help="torchvision's, a robust one, or fast_adversarial's"),
    ],
    out: Annotated[Path, typer.Option(help="the safetensors file to write")],
) -> None:
    """Write one safetensors file of theta_p out of an official checkpoint.

    It holds exactly the tensors of the network.
    """
    from dwlt_lib.models import checkpoints, weight_files

    try:
        checkpoint = checkpoints.read_checkpoint(file, source)
        weight_files.write_checkpoint(checkpoint, out)
    except OSError as error:
        refuse(
            f"{error.filename}: {error.strerror}; want a checkpoint that can be read, and an --out"
            " to write to"
        )
    except ValueError as error:
        refuse(str(error))
    print(f"{out}: {weight_files.describe(checkpoint)}")


@app.command(epilog="Example: dwlt weights fetch std")
def fetch(
    name: Annotated[
        str, typer.Argument(help="std, at, fat, or a variant (an unknown name lists them)")
    ],
) -> None:
    """Download an official checkpoint to DWLT_DATA/weights and check its hash.

    An interrupted one is continued.
    """
    from dwlt_lib.models import pretrained

    if name not in pretrained.OFFICIAL:
        refuse(f"weights {name!r}: want one of {', '.join(pretrained.OFFICIAL)}")
    with downloading(name) as (_, advance):
        path, found = pretrained.fetch(name, progress=advance)
    print(pretrained.describe(name, path, found))
