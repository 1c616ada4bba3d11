"""``python -m cellseg_d2.cli``, which is ``cellseg-d2``."""

from cellseg_d2.cli import main

if __name__ == "__main__":
    main()
