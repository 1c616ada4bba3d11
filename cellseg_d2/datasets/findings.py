"""Findings: errors and warnings about annotations, collected while they are read and checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from cellseg_d2.errors import CellSegError, printable

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Kind:
    """A sort of finding.

    Attributes:
        severity: ``"error"`` stops the conversion unless something is done about it, ``"warning"`` is only reported.
        meaning: one line for the report.
        repairable: whether ``--clean`` does something about it; else only another option or another file does.
    """

    severity: str
    meaning: str
    repairable: bool = True


KINDS = {
    "malformed mask": Kind(ERROR, "the run lengths or polygon cannot be read"),
    "empty mask": Kind(ERROR, "no pixel is annotated"),
    "non-positive length": Kind(ERROR, "a run of zero or fewer pixels"),
    "outside the image": Kind(ERROR, "pixels that the image does not have"),
    "overlaps itself": Kind(ERROR, "the same pixel is in two runs of one mask"),
    "unknown cell type": Kind(ERROR, "a cell type that is not among the categories"),
    "malformed size": Kind(ERROR, "width or height is not a positive whole number"),
    "inconsistent size": Kind(ERROR, "rows of one image give different sizes"),
    "missing id": Kind(ERROR, "a row that names no image"),
    "unknown image": Kind(ERROR, "an annotation of an image that is not listed"),
    "missing image": Kind(ERROR, "an annotated image has no file"),
    "unreadable image": Kind(ERROR, "the image's file cannot be read"),
    "wrong size": Kind(ERROR, "the image's file has another size than its annotations"),
    "missing labels": Kind(ERROR, "an image has no label image"),
    "several label images": Kind(ERROR, "an image has label images that differ", repairable=False),
    "binary mask": Kind(ERROR, "a mask of all cells, in which they have no numbers", repairable=False),
    "background with a number": Kind(ERROR, "a number that seems to be the background", repairable=False),
    "numbers that are not cells": Kind(ERROR, "a photograph, or a mask of classes, as a label image", repairable=False),
    "unsorted runs": Kind(WARNING, "runs not in ascending order; the pixels are clear"),
    "duplicate": Kind(WARNING, "the same mask as another row of the image"),
    "near-duplicate": Kind(WARNING, "IoU above 0.5 with another row of the image"),
    "line artefact": Kind(WARNING, "a straight horizontal edge of more than 40 px inside the image"),
    "holes": Kind(WARNING, "background enclosed by the mask"),
    "several components": Kind(WARNING, "the mask is in several pieces (8-connected)"),
    "implausible shape": Kind(WARNING, "a shape that hardly any cell of its size has"),
    "several cell types": Kind(WARNING, "an image with cells of different types"),
    "unreadable sample_id": Kind(WARNING, "plate and well cannot be told; the image is its own group"),
    "crowd": Kind(WARNING, "a region marked iscrowd, in which nobody annotated: nothing is learnt from it"),
    "cut cell": Kind(WARNING, "a tile has less than a tenth of a cell"),
    "image without rows": Kind(WARNING, "a file that no annotation names; it is not converted (unless --keep-empty)"),
    "image without cells": Kind(WARNING, "an image that is converted without any cell"),
    "left out": Kind(WARNING, "an image that was asked to be dropped"),
}


@dataclass
class Finding:
    """One error or warning.

    Attributes:
        kind: a key of :data:`KINDS`.
        id: id of the image; None if the row names none.
        row: see :class:`cellseg_d2.datasets.records.CellAnnotation`; None when the whole image is meant.
        reason: what exactly, in words.
        action: what was done about it; None when nothing was changed.
    """

    kind: str
    id: str | None
    row: int | str | None
    reason: str
    action: str | None = None

    @property
    def severity(self) -> str:
        """``"error"`` or ``"warning"``."""
        return KINDS[self.kind].severity

    @property
    def is_open(self) -> bool:
        """Whether it is an error about which nothing was done."""
        return self.severity == ERROR and self.action is None

    def to_dict(self) -> dict:
        """For JSON."""
        return {"severity": self.severity, **asdict(self)}

    def __str__(self) -> str:
        row = f"row {self.row}, " if self.row is not None else ""
        name = f"id {printable(self.id)}" if self.id else "no id"
        return f"{row}{name}: {self.kind}: {self.reason}"


class FindingLog(list[Finding]):
    """All findings of a data set, in the order in which they were noticed.

    Args:
        clean: whether to repair or drop what is wrong; the log then says what was done about each finding.
    """

    def __init__(self, clean: bool = False):
        super().__init__()
        self.clean = clean

    def note(
        self,
        kind: str,
        id: str | None,
        row: int | str | None,
        reason: str,
        *,
        repair: str | None = None,
        action: str = "",
    ) -> Finding:
        """Append a finding and return it.

        Args:
            kind, id, row, reason: see :class:`Finding`.
            repair: what the caller does about it when :attr:`clean` is set.
            action: what the caller does about it in any case.
        """
        if kind not in KINDS:
            raise KeyError(kind)
        self.append(Finding(kind, id, row, reason, action or (repair if self.clean else None)))
        return self[-1]

    @property
    def open_errors(self) -> list[Finding]:
        """Errors about which nothing was done."""
        return [finding for finding in self if finding.is_open]

    def raise_open_errors(self, source: object, hint: str = "", shown: int = 5) -> None:
        """Refuse the data when there are open errors.

        Args:
            source: what was read, for the message.
            hint: what to do, put behind the number of errors.
            shown: how many errors are named.

        Raises:
            CellSegError: names row, id and reason of the first errors.
        """
        errors = self.open_errors
        if not errors:
            return
        lines = [f"  {error}" for error in errors[:shown]]
        if len(errors) > shown:
            lines.append(f"  … and {len(errors) - shown} more")
        plural = "errors" if len(errors) > 1 else "error"
        raise CellSegError(f"{source} has {len(errors)} {plural}{hint}:\n" + "\n".join(lines))
