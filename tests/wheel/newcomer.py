"""Somebody without a checkout: an empty home, an empty folder, and the wheel in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What tools leave in a checkout: none of it is source, and an old build folder would put removed files into the wheel.
NO_SOURCE = (".*", "out", "build", "dist", "runs", "*.egg-info", "__pycache__", "tests")

# A machine that does other things, and a mirror that is asked for the first time. Alone it takes a minute.
INSTALL_S = 600


def build_wheel(folder: Path) -> Path:
    """The wheel of a copy of this tree."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NO_SOURCE))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S)
    shutil.rmtree(source)
    (wheel,) = folder.glob("framelane-*.whl")
    return wheel


def names_in(wheel: Path) -> set[str]:
    """The files that a wheel installs, without those about itself."""
    with zipfile.ZipFile(wheel) as content:
        return {name for name in content.namelist() if ".dist-info/" not in name}


def files_under(folder: Path) -> set[str]:
    """Every file below a folder, by its path from there; what Python compiled left out."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }


class Newcomer:
    """Runs commands of the installed wheel, with nothing of this session's environment but the system's programs."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        """Make the environment and install the wheel with the versions that we test with."""
        self.home, self.cwd = folder / "home", folder / "work"
        # Short: the sockets of Ray lie in it, and their paths have 107 bytes.
        self.temporary = Path(tempfile.mkdtemp(prefix="fl"))
        self.venv = folder / "venv"
        for made in (self.home, self.cwd):
            made.mkdir()
        subprocess.run([sys.executable, "-m", "venv", str(self.venv)], check=True, timeout=INSTALL_S)
        self.environment = {
            "PATH": f"{self.venv / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "COLUMNS": "120",
        }
        install = ["-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-compile", "--constraint"]
        command = [str(self.venv / "bin" / "python"), *install, str(ROOT / "constraints.txt"), str(wheel)]
        subprocess.run(command, cwd=self.cwd, check=True, capture_output=True, text=True, timeout=INSTALL_S)

    def close(self) -> None:
        """Remove what lies outside the test's folder."""
        shutil.rmtree(self.temporary)

    def __call__(self, *command: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """Run one command in the newcomer's folder; fails with all that it printed."""
        done = subprocess.run(
            command, cwd=self.cwd, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done
