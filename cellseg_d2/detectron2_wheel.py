"""Install Detectron2 for every Python and system: the Python part of one known wheel, without its binary.

Detectron2 is on no package index under its own name. Upstream's commit 9ca66896 (April 2024) was repackaged on PyPI, as
a wheel whose tag names Python 3.10 for the sake of a compiled ``_C`` that no network of this project needs and nobody
can audit. Here that file is compared with the hash of the very one that was compared with upstream, ``_C`` and a stray
top-level package ``tools`` are left out, and what remains, Python only, is installed by pip as a wheel for any Python.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from cellseg_d2.errors import CellSegError

PACKAGE, VERSION = "sal-detectron2", "0.7.2"
COMMIT = "9ca66896"
SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
# The local version tells the reduced wheel from the one that it is made of.
PURE_VERSION = f"{VERSION}+python"
_DOWNLOAD = ["--no-deps", "--only-binary=:all:", "--python-version", "3.10", f"{PACKAGE}=={VERSION}"]
DOWNLOAD = f"pip download {' '.join(_DOWNLOAD)}"


def installed_detectron2() -> str | None:
    """The version of the installed Detectron2, ``"unknown"`` where it is not a package; None where there is none."""
    if find_spec("detectron2") is None:
        return None
    for name in (PACKAGE, "detectron2"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def install_detectron2(wheel: str | Path | None = None) -> None:
    """Install the Python part of Detectron2 into this Python's environment, replacing an installed one.

    Args:
        wheel: the file from PyPI if already downloaded; None downloads it.

    Raises:
        CellSegError: the file cannot be downloaded or is not the known one, or pip fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(wheel) if wheel is not None else _download(Path(folder))
        pure = make_pure_wheel(source, Path(folder))
        _pip("install", "--no-deps", "--no-compile", "--force-reinstall", str(pure))


def make_pure_wheel(source: str | Path, folder: str | Path) -> Path:
    """Write the wheel for any Python that is the Python part of the one from PyPI; returns its path.

    The same bytes come out every time: the archive's times are those of the source.

    Raises:
        CellSegError: ``source`` cannot be read or is not the known file.
    """
    source = Path(source)
    try:
        content = source.read_bytes()
    except OSError as error:
        raise CellSegError(f"{source} cannot be read: {error.strerror}; get it by `{DOWNLOAD}`") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise CellSegError(
            f"{source} is not the known wheel of Detectron2: its SHA-256 is {found}, not {SHA256}; "
            f"get it by `{DOWNLOAD}`"
        )
    return _reduced(source, Path(folder) / f"{PACKAGE.replace('-', '_')}-{PURE_VERSION}-py3-none-any.whl")


def _reduced(source: Path, target: Path) -> Path:
    name = PACKAGE.replace("-", "_")
    old, new = f"{name}-{VERSION}.dist-info/", f"{name}-{PURE_VERSION}.dist-info/"
    record = []
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as written:

        def add(path: str, content: bytes, date: tuple[int, int, int, int, int, int]) -> None:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(content)}")
            written.writestr(zipfile.ZipInfo(path, date), content, zipfile.ZIP_DEFLATED)

        for entry in read.infolist():
            path, content = entry.filename, read.read(entry)
            if path.startswith("detectron2/") and not path.startswith("detectron2/_C."):
                add(path, content, entry.date_time)
            elif path == f"{old}LICENSE":
                add(f"{new}LICENSE", content, entry.date_time)
            elif path == f"{old}METADATA":
                add(f"{new}METADATA", _metadata(content.decode()).encode(), entry.date_time)
            elif path == f"{old}WHEEL":
                add(f"{new}WHEEL", _WHEEL.encode(), entry.date_time)
        written.writestr(zipfile.ZipInfo(f"{new}RECORD"), "\n".join([*record, f"{new}RECORD,,", ""]))
    return target


_WHEEL = "Wheel-Version: 1.0\nGenerator: cellseg_d2\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def _metadata(text: str) -> str:
    """The package's own, with the version changed and without its outdated requirements: pyproject.toml has today's."""
    head, separator, body = text.partition("\n\n")
    dropped = ("Requires-Dist:", "Provides-Extra:")
    lines = [line for line in head.splitlines() if not line.startswith(dropped)]
    return (
        "\n".join(f"Version: {PURE_VERSION}" if line.startswith("Version:") else line for line in lines)
        + separator
        + body
    )


def _download(folder: Path) -> Path:
    _pip("download", *_DOWNLOAD, "--dest", str(folder))
    return next(folder.glob("*.whl"))


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    result = subprocess.run([*command, *words], capture_output=True, text=True)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["it said nothing"]
        raise CellSegError(
            f"pip {words[0]} of Detectron2 failed: {errors[0].removeprefix('ERROR: ')}; without access to PyPI, "
            f"get the file elsewhere by `{DOWNLOAD}` and name it with --wheel"
        )
