"""The documentation site: `make docs`.

Its pages are the texts of the repository where they lie, so that every link holds there and on the site.
"""

import cellseg_d2

project = "cellseg_d2"
author = "The developers of cellseg_d2"
release = version = cellseg_d2.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
include_patterns = [
    "index.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/**",
    "configs/RESULTS.md",
    "datasets/README.md",
    "cellseg_d2/models/*/README.md",
]
exclude_patterns = ["**/.ipynb_checkpoints"]

html_theme = "furo"
html_title = f"cellseg_d2 {release}"
html_copy_source = False
html_show_copyright = False

myst_heading_anchors = 3
nb_execution_mode = "off"  # it was executed, and a test executes it again

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 100
