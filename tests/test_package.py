"""What the package promises as a whole: its names, and that nothing heavy is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import reblurkit


def modules_after(code):
    script = f"import sys\n{code}\nprint(*sys.modules)"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_imports_nothing_heavy():
    modules = modules_after("import reblurkit; dir(reblurkit); reblurkit.__version__")
    assert not {"torch", "lightning", "numpy", "kornia"} & set(modules)


@pytest.mark.parametrize("words", [["--help"], ["demo", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(words):
    code = f"from reblurkit.cli import main\ntry: main({words})\nexcept SystemExit: pass"
    assert not {"torch", "lightning"} & set(modules_after(code))


@pytest.mark.parametrize("package", ["adaptation", "losses", "models", "metrics", "data", "blur"])
def test_lightning_is_imported_by_plug_ins_only(package):
    assert "lightning.pytorch" not in modules_after(f"import reblurkit.{package}")


def test_names_resolve_and_are_listed():
    for name in reblurkit.__all__:
        assert getattr(reblurkit, name) is not None
        assert name in dir(reblurkit)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = reblurkit.nope


@pytest.mark.parametrize("package", ["plugins", "losses", "models", "metrics", "data", "blur"])
def test_public_names_of_the_packages_exist(package):
    module = getattr(reblurkit, package)
    for name in module.__all__:
        assert getattr(module, name).__doc__, name
