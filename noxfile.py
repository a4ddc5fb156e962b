"""Development tasks: ``nox -s tests lint types`` is what a change must pass.

All sessions share one environment, ``.nox/dev``: torch is far too large to install once per session.
"""

import hashlib
import os
import re
import sys
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
DEV = ROOT / ".nox" / "dev"
# A process per core, each with one thread: small tensors gain nothing from more.
ALL_CORES = ["-n", "auto", "--dist", "worksteal"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def dev_environment(session: nox.Session) -> Path:
    """Create ``.nox/dev`` with the package (editable) and its extra [dev], again only when pyproject.toml changed."""
    bin_folder = DEV / ("Scripts" if os.name == "nt" else "bin")
    stamp = DEV / "pyproject.sha256"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        session.run(sys.executable, "-m", "venv", str(DEV), external=True)
        session.run(str(bin_folder / "python"), "-m", "pip", "install", "-q", "-e", ".[dev]", external=True)
        stamp.write_text(wanted)
    return bin_folder


def run(session: nox.Session, program: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    """Run a program of the shared environment."""
    bin_folder = dev_environment(session)
    path = os.pathsep.join([str(bin_folder), os.environ["PATH"]])
    session.run(str(bin_folder / program), *arguments, env={"PATH": path, **(env or {})}, external=True)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run all but slow tests; arguments after ``--`` go to pytest, in one process and without the Triton kernels."""
    if session.posargs:
        run(session, "python", "-m", "pytest", *session.posargs)
        return
    run(session, "python", "-m", "pytest", "-m", "not slow", *ALL_CORES, env=ONE_THREAD)
    interpret(session)


@nox.session(venv_backend="none")
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes: whole commands over two processes, and the longer examples."""
    run(session, "python", "-m", "pytest", "-m", "slow", *ALL_CORES, env=ONE_THREAD)


@nox.session(venv_backend="none")
def interpret(session: nox.Session) -> None:
    """Run the Triton kernels on the CPU. Triton must know before it is imported: a process of its own."""
    arguments = session.posargs or ALL_CORES
    run(session, "python", "-m", "pytest", "tests/interpret", *arguments, env={"TRITON_INTERPRET": "1", **ONE_THREAD})


@nox.session(venv_backend="venv", reuse_venv=True)
def minimum(session: nox.Session) -> None:
    """Install the oldest versions that pyproject.toml allows and run the suite; arguments go to pytest instead."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    ours = ("cpu", "examples", "heic", "perceptual", "video")
    wanted = [*project["dependencies"], *(requirement for extra in ours for requirement in extras[extra])]
    # A floor is a minor version: its newest patch, which is what people who stay on it have.
    oldest = [re.sub(r">=(\d+(\.\d+)?).*", r"==\1.*", requirement) for requirement in wanted]
    tools = [requirement for requirement in extras["dev"] if requirement.startswith(("pytest", "jupy", "nbc", "ipy"))]
    # A floor's newest patch may have no wheel.
    session.install("--prefer-binary", *oldest, *tools, "efficientnet-lite-pytorch==0.1.0")
    session.install("--no-deps", "-e", ".")
    session.run("python", "-m", "pytest", *(session.posargs or ALL_CORES), env=ONE_THREAD)


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """On a machine with a GPU: tests, memory checker, benchmarks, each part in its time; ``-- PART...`` runs some.

    Writes ``docs/results/*_cuda``, and says at the end what was left out and why.
    """
    run(session, "python", "-m", "tests.gpu", *session.posargs)


@nox.session(venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Read damaged and hostile files of every format, for a minute or ``-- --seconds N``."""
    run(session, "python", "-m", "tests.fuzz", *session.posargs, env=ONE_THREAD)


@nox.session(venv_backend="none")
def faults(session: nox.Session) -> None:
    """Kill runs over two file systems and fill disks for ten minutes; ``-- --write`` keeps the counts in docs."""
    run(session, "python", "-m", "tests.faults", *session.posargs, env=ONE_THREAD)


@nox.session(venv_backend="none")
def scale(session: nox.Session) -> None:
    """Compare many processes with one, and watch long runs; ``-- --write`` keeps what was found in docs."""
    run(session, "python", "-m", "tests.scale", *session.posargs, env=ONE_THREAD)


@nox.session(venv_backend="none")
def kernels(session: nox.Session) -> None:
    """Compile the Triton kernels for GPUs, without one (part of the test suite)."""
    run(session, "python", "-m", "pytest", "tests/kernels", *session.posargs)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types."""
    run(session, "mypy")


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Build the site into ``dist/site``; a warning is an error, and nothing is downloaded while building."""
    run(session, "python", "-m", "pip", "install", "-q", "-e", ".[docs]")
    run(session, "python", "-m", "sphinx", "-W", "--keep-going", "-E", "docs", "dist/site", *session.posargs)


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """Run the demo into ``runs/demo``."""
    run(session, "reblurkit", "demo", *session.posargs)


@nox.session(venv_backend="none")
def notebooks(session: nox.Session) -> None:
    """Generate the notebooks from the example files and run them, so that they hold their pictures."""
    for example in sorted((ROOT / "examples").glob("*.py")):
        notebook = ROOT / "examples" / "notebooks" / f"{example.stem}.ipynb"
        run(session, "jupytext", "--to", "ipynb", "--output", str(notebook), str(example))
        execute = ["nbconvert", "--to", "notebook", "--execute", "--inplace", str(notebook)]
        # Warnings name paths of the machine that ran the notebook.
        run(session, "jupyter", *execute, env={"PYTHONWARNINGS": "ignore"})


@nox.session(venv_backend="none")
def build(session: nox.Session) -> None:
    """Build the wheel and the source archive into ``dist``."""
    run(session, "python", "-m", "pip", "wheel", "--no-deps", "-w", "dist", ".")
