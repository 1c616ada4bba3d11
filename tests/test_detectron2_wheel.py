"""Detectron2's wheel is taken only if it is the known one, and without what nobody can audit."""

import hashlib
import subprocess
import sys
import zipfile

import pytest

import cellseg_d2.detectron2_wheel as module
from cellseg_d2.cli import install_detectron2 as command
from cellseg_d2.detectron2_wheel import install_detectron2, installed_detectron2, make_pure_wheel
from cellseg_d2.errors import CellSegError

OLD, NEW = "sal_detectron2-0.7.2.dist-info/", "sal_detectron2-0.7.2+python.dist-info/"
FILES = {
    "detectron2/__init__.py": "there = True\n",
    "detectron2/model_zoo/x.yaml": "A: 1\n",
    "detectron2/_C.cpython-310-x86_64-linux-gnu.so": "binary",
    "tools/train_net.py": "stray = True\n",
    f"{OLD}LICENSE": "the licence\n",
    f"{OLD}METADATA": "Metadata-Version: 2.1\nName: sal-detectron2\nVersion: 0.7.2\nRequires-Dist: numpy<2\n\nText\n",
    f"{OLD}WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp310-cp310-linux_x86_64\n",
    f"{OLD}RECORD": "",
}


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A small wheel in place of the one from PyPI, and its hash in place of that one's."""
    path = tmp_path / "sal_detectron2-0.7.2-cp310-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_the_python_part_and_its_licence_are_kept(known, tmp_path):
    pure = make_pure_wheel(known, tmp_path)
    assert pure.name == "sal_detectron2-0.7.2+python-py3-none-any.whl"
    with zipfile.ZipFile(pure) as archive:
        content = {name: archive.read(name).decode() for name in archive.namelist()}
    assert {name for name in content if not name.startswith("sal_")} == {
        "detectron2/__init__.py",
        "detectron2/model_zoo/x.yaml",
    }
    assert content[f"{NEW}LICENSE"] == "the licence\n"
    assert "Requires-Dist" not in content[f"{NEW}METADATA"]
    assert "Version: 0.7.2+python" in content[f"{NEW}METADATA"]
    assert content[f"{NEW}METADATA"].endswith("\n\nText\n")
    assert "Tag: py3-none-any" in content[f"{NEW}WHEEL"]
    assert make_pure_wheel(known, tmp_path).read_bytes() == pure.read_bytes()


def test_pip_installs_and_removes_it(known, tmp_path):
    pure, site = make_pure_wheel(known, tmp_path), tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", site, pure], check=True, capture_output=True
    )
    assert (site / "detectron2/__init__.py").read_text() == "there = True\n"
    assert not (site / "tools").exists()
    code = "from importlib.metadata import version; print(version('sal-detectron2'))"
    found = subprocess.run([sys.executable, "-c", code], cwd=site, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0.7.2+python"


def test_another_file_is_refused_before_anything_is_installed(known, monkeypatch):
    known.write_bytes(known.read_bytes() + b"\0")
    monkeypatch.setattr(module, "_pip", lambda *words: pytest.fail(f"pip {words}"))
    with pytest.raises(CellSegError, match="is not the known wheel of Detectron2"):
        install_detectron2(known)
    with pytest.raises(CellSegError, match=r"none\.whl cannot be read: No such file.*pip download --no-deps"):
        install_detectron2(known.with_name("none.whl"))


def test_what_pip_says_is_said(monkeypatch):
    monkeypatch.setattr(module, "_DOWNLOAD", ["--no-index", "sal-detectron2==0.7.2"])
    with pytest.raises(
        CellSegError, match=r"pip download of Detectron2 failed: .*sal-detectron2.*name it with --wheel"
    ):
        install_detectron2()


def test_the_command_leaves_what_is_there(capsys, monkeypatch):
    monkeypatch.setattr(module, "_pip", lambda *words: pytest.fail(f"pip {words}"))
    assert installed_detectron2() is not None
    command.main([])
    assert capsys.readouterr().out.startswith("Detectron2 is there (version ")


def test_the_command_installs_what_is_named(known, capsys, monkeypatch):
    words = []
    monkeypatch.setattr(module, "_pip", lambda *given: words.append(given))
    command.main(["--force", "--wheel", str(known)])
    assert words[0][:4] == ("install", "--no-deps", "--no-compile", "--force-reinstall")
    assert words[0][4].endswith("+python-py3-none-any.whl")
    assert capsys.readouterr().out == "installed Detectron2 0.7.2+python (upstream's commit 9ca66896)\n"
