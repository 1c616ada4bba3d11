"""A real napari viewer without a screen: Qt draws off screen, and OpenGL has a virtual display."""

import os
import shutil
import subprocess
import sys
import time

import pytest


@pytest.fixture(scope="session")
def display():
    """What OpenGL needs: the display that there is, or Xvfb. Continuous integration must not do without."""
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY"):
        yield
        return
    if shutil.which("Xvfb") is None:
        reason = "no display, and no Xvfb to make one (apt-get install xvfb)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1600x1200x24", "-nolisten", "tcp", "-noreset"]
    process = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        os.environ["DISPLAY"] = f":{pipe.readline().strip()}"
    yield
    del os.environ["DISPLAY"]
    process.terminate()
    process.wait()


@pytest.fixture(scope="session")
def qt(display, tmp_path_factory):
    """Qt's application; napari's settings are not the user's."""
    if os.environ.get("CI"):
        import napari  # noqa: F401  must be there
    pytest.importorskip("napari", reason="napari is not installed: pip install 'cellseg_d2[napari]'")
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    os.environ["NAPARI_CONFIG"] = str(tmp_path_factory.mktemp("napari") / "settings.yaml")
    from napari.qt import get_qapp

    return get_qapp()


@pytest.fixture
def until(qt):
    """Lets Qt work until a condition holds."""

    def wait(condition, seconds=600):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            qt.processEvents()
            time.sleep(0.01)
        qt.processEvents()

    return wait
