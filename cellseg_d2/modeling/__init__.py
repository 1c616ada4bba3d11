"""Parts of networks that Detectron2 lacks, in its registries; importing this package registers all of them."""

from cellseg_d2.registry import import_all

import_all(__name__)
