"""Install Detectron2, which is on no package index under its own name."""

from __future__ import annotations

import argparse

from cellseg_d2.cli.common import make_parser

EXAMPLES = """\
  cellseg-d2 install-detectron2
  cellseg-d2 install-detectron2 --wheel sal_detectron2-0.7.2-cp310-none-any.whl
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "install_detectron2",
        "Install Detectron2, which is on no package index under its own name: the Python part of a repackaged wheel\n"
        "on PyPI (upstream's commit 9ca66896), checked by its hash, for any Python and system, without a compiler.",
        EXAMPLES,
    )
    parser.add_argument(
        "--wheel", metavar="FILE", help="the wheel from PyPI, downloaded before, for a computer without network"
    )
    parser.add_argument("--force", action="store_true", help="replace an installed Detectron2")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from cellseg_d2.detectron2_wheel import COMMIT, PURE_VERSION, install_detectron2, installed_detectron2

    found = installed_detectron2()
    if found is not None and not args.force:
        print(f"Detectron2 is there (version {found}); --force replaces it")
        return
    install_detectron2(args.wheel)
    print(f"installed Detectron2 {PURE_VERSION} (upstream's commit {COMMIT})")
