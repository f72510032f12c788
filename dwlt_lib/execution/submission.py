"""A study handed to an engine that starts `dwlt run` by itself: Slurm, Kubernetes, ssh.

No driver has to stay: any number of such runs share the work by leases on records, and each goes on
where another stopped.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import jinja2

from dwlt_lib.config.durations import parse_duration
from dwlt_lib.config.sites import KubernetesSite, SlurmSite, SshSite
from dwlt_lib.config.studies import Study
from dwlt_lib.records import store

Say = Callable[[str], None]
"""Prints a line."""
VARIABLES = ("DWLT_OUTPUTS", "DWLT_DATA")
"""Environment that a run on another machine needs."""


def script(site: SlurmSite | KubernetesSite | SshSite, study: Study, params: Path) -> str:
    """What is handed to the engine, as text.

    Args:
        site: where the study runs.
        study: the study.
        params: its parameter file.

    Returns:
        For Slurm the batch script, for Kubernetes a manifest, for ssh a command per host.
    """
    if isinstance(site, SshSite):
        return "".join(f"{shlex.join(command)}\n" for command in _ssh_commands(site, params))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dwlt_lib.execution"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    device = "cuda" if site.gpus else "cpu"
    values = {"site": site, "study": study.name}
    if isinstance(site, KubernetesSite):
        arguments = ["run", f"/study/{study.name}.yaml", "--device", device]
        if not site.gpus:
            arguments += ["--workers", str(site.cpus)]
        values |= {"arguments": arguments, "text": params.read_text(encoding="utf-8")}
        return environment.get_template("kubernetes.yaml.j2").render(values)
    seconds, margin = parse_duration(site.walltime), parse_duration(site.margin)
    workers = () if site.gpus else ("--workers", str(site.cpus))
    values |= {
        "minutes": max(1, round(seconds / 60)),
        "budget": f"{seconds - margin:.0f}s",
        "log": store.study_dir(study.name),
        "exports": _exports(),
        "checkout": shlex.quote(str(store.checkout())),
        "command": shlex.join(_command(params, "--device", device, *workers)),
    }
    return environment.get_template("slurm.sh.j2").render(values)


def submit(site: SlurmSite | KubernetesSite | SshSite, study: Study, params: Path, say: Say) -> int:
    """Hand the study to the engine; for ssh, stay until every host has ended.

    Args:
        site: where the study runs.
        study: the study.
        params: its parameter file.
        say: prints a line.

    Returns:
        The engine's exit status; for ssh the greatest of the hosts'.

    Raises:
        ValueError: the engine's command is not there; one line.
    """
    program = {SlurmSite: "sbatch", KubernetesSite: "kubectl", SshSite: "ssh"}[type(site)]
    if shutil.which(program) is None:
        raise ValueError(
            f"{program}: no such command here; run this where it is, or see by --dry-run what it"
            " would be given"
        )
    if isinstance(site, SshSite):
        return _run_all(dict(zip(site.hosts, _ssh_commands(site, params), strict=True)), say)
    arguments = [] if isinstance(site, SlurmSite) else ["apply", "-f", "-"]
    text = script(site, study, params)
    return subprocess.run([program, *arguments], input=text, text=True, check=False).returncode


def _command(params: Path, *options: str, checkout: str | None = None) -> list[str]:
    """The line that runs a study on another machine, which sees the same folders."""
    programs = Path(sys.executable).parent if checkout is None else f"{checkout}/.venv/bin"
    return [f"{programs}/dwlt", "run", str(params.resolve()), *options]


def _exports() -> list[str]:
    values = {"DWLT_OUTPUTS": str(store.outputs())}
    values |= {name: os.environ[name] for name in VARIABLES if name in os.environ}
    return [f"export {name}={shlex.quote(value)}" for name, value in values.items()]


def _ssh_commands(site: SshSite, params: Path) -> list[list[str]]:
    checkout = site.directory or str(store.checkout())
    run = shlex.join(_command(params, "--device", site.device, checkout=site.directory))
    line = " && ".join([*_exports(), f"cd {shlex.quote(checkout)}", *site.setup, f"exec {run}"])
    # a terminal, so that the run is told when this end of it has gone
    return [["ssh", "-tt", "-o", "BatchMode=yes", host, line] for host in site.hosts]


def _run_all(commands: dict[str, Sequence[str]], say: Say) -> int:
    """Runs a command for each host at once, says their lines, and returns the greatest status."""
    running = {
        host: subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        for host, command in commands.items()
    }

    def follow(host: str, output: IO[str]) -> None:
        for line in output:
            say(f"{host}: {line.rstrip()}")

    threads = [
        threading.Thread(target=follow, args=(host, process.stdout), daemon=True)
        for host, process in running.items()
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(process.wait() for process in running.values())
    finally:
        for process in running.values():
            process.terminate()
            process.wait()
