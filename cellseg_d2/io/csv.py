"""Reading CSV files strictly: as text, with the line of every row, and with clear errors."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cellseg_d2.errors import CellSegError

_GZIP_MAGIC = b"\x1f\x8b"
# The competition's own file has 24 MB. A small one can be packed so that it unpacks to any size.
_MAX_UNPACKED = 10**9
# What spreadsheets take for the beginning of a formula, also after apostrophes, see `spreadsheet_text`.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_csv_table(path: str | Path, required: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read columns of a CSV as text.

    Gzip is told by the file's content, a byte order mark is skipped, blank lines are skipped. An apostrophe before what
    spreadsheets would take for a formula is taken off, see :func:`spreadsheet_text`.

    Args:
        path: of the file.
        required: columns that must be there.
        optional: columns that are read where they are there.

    Returns:
        One row per line with the required columns and the optional ones that exist, all ``str``; an absent field or
        one that says NaN is ``""``. The index is the line in the file, the header being line 1.

    Raises:
        CellSegError: the file is missing, empty, damaged, no CSV with commas, or lacks a column or has it twice.
    """
    path = Path(path)
    text = _read_text(path)
    header = text[: text.find("\n") if "\n" in text else len(text)].strip()
    if not header:
        raise CellSegError(f"{path} is empty; it needs the columns {','.join(required)}")
    if "," not in header and len(required) > 1:
        for separator, name in _OTHER_SEPARATORS.items():
            if separator in header:
                raise CellSegError(f"{path} separates its columns by {name}; save it with commas")
    try:
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, skip_blank_lines=False)
    except (ValueError, pd.errors.ParserError) as error:  # pandas names the line
        raise CellSegError(f"{path} cannot be read as CSV: {str(error).splitlines()[0].strip()}") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first column for row names
        raise CellSegError(f"{path} cannot be read as CSV: its rows have more fields than its header has names")
    missing = [name for name in required if name not in table]
    if missing:
        names = ", ".join(map(repr, missing))
        shown = ",".join(map(str, table.columns))
        raise CellSegError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {names}: "
            f"it needs {','.join(required)} and has {shown[:200]}"
        )
    twice = [name for name in (*required, *optional) if f"{name}.1" in table and _header(text).count(name) > 1]
    if twice:
        raise CellSegError(f"{path} has several columns {twice[0]!r}; keep the one that is meant")
    table = table[[*required, *(name for name in optional if name in table)]].fillna("")
    for name in table:
        table[name] = table[name].str.strip().replace({"nan": "", "NaN": "", "NAN": ""}).map(plain_text)
    table.index = range(2, len(table) + 2)
    return table[(table != "").any(axis=1)]


def spreadsheet_text(text: str) -> str:
    """Text as it is written to a CSV that people open in spreadsheets, which would take ``=1+1`` for a formula.

    An apostrophe goes before what begins as formulas do, which spreadsheets show as plain text then. So that reading
    gives each text back, one more goes before what begins with apostrophes and then as a formula.

    Example:
        >>> [spreadsheet_text(text) for text in ("a1", "=1+1", "'=1+1", "'a")]
        ["a1", "'=1+1", "''=1+1", "'a"]
    """
    return f"'{text}" if _FORMULA.match(text) else text


def plain_text(text: str) -> str:
    """The inverse of :func:`spreadsheet_text`, which :func:`read_csv_table` applies; other texts stay as they are."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text[1:]) else text


def spreadsheet_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose texts are :func:`spreadsheet_text`; numbers stay numbers."""
    texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    return table.assign(**{name: table[name].map(spreadsheet_text) for name in texts})


def _header(text: str) -> list[str]:
    """Names of the columns, of which pandas has numbered those that occur again."""
    return next(csv.reader(io.StringIO(text)))


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP_MAGIC):
            with gzip.open(path) as file:
                data = file.read(_MAX_UNPACKED + 1)
            if len(data) > _MAX_UNPACKED:
                raise CellSegError(f"{path} unpacks to more than {_MAX_UNPACKED / 1e9:.0f} GB, which no such CSV does")
        if b"\0" in data:  # pandas would end a field there
            raise CellSegError(f"{path} is no text in UTF-8 (it has NUL characters); save it as CSV in UTF-8")
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise CellSegError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise CellSegError(f"{path} is a folder; name the CSV file in it") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise CellSegError(f"{path} is a damaged or truncated gzip file; copy or download it again") from None
    except UnicodeDecodeError as error:
        raise CellSegError(f"{path} is no text in UTF-8 (byte {error.start}); save it as CSV in UTF-8") from None
    except OSError as error:
        raise CellSegError(f"{path} cannot be read: {error.strerror or error}") from None
