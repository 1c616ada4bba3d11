"""Any file or array as a grey image, whole or piece by piece; needs neither torch nor Detectron2."""
