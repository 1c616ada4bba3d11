"""What libraries say of each other, which no user of this project could act on."""

from __future__ import annotations

import logging
import warnings


def quieten() -> None:
    """Silence, in this process, what PyTorch, timm and others say of how Detectron2 and they themselves are used.

    Each filter is for one such text or for the modules that write it: warnings of other origin stay. Must come before
    the libraries are imported, as some speak at once.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch|detectron2|fvcore")
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm in notebooks without ipywidgets
    for name in ("torch.fx", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
