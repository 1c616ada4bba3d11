"""Libraries' warnings about each other stay unsaid, in a notebook and in a script; all others are said."""

import subprocess
import sys
import warnings


def test_a_first_segmentation_says_nothing(repository):
    code = """
import sys, warnings
from cellseg_d2 import CellSegmenter
import numpy as np
CellSegmenter.from_pretrained("cells").segment(np.zeros((64, 64), np.uint8))
warnings.warn("of the user's", FutureWarning)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, check=True)
    assert done.stdout == ""
    said, *source = done.stderr.splitlines()
    assert said.endswith("FutureWarning: of the user's")
    assert "".join(source).strip() in ("", code.splitlines()[-1]), "Python 3.13 shows the line, too; no more is said"


def test_only_what_is_known_is_filtered():
    with warnings.catch_warnings(record=True) as caught:
        from cellseg_d2.io.quiet import quieten

        warnings.resetwarnings()
        quieten()
        warnings.warn("IProgress not found. Please update jupyter and ipywidgets.", UserWarning, stacklevel=1)
        warnings.warn("torch.meshgrid: in an upcoming release", UserWarning, stacklevel=1)
        assert not caught
        warnings.warn("something else of torch", UserWarning, stacklevel=1)
        warnings.warn("torch.meshgrid", RuntimeWarning, stacklevel=1)
        assert len(caught) == 2
