"""Read CSV files strictly, as text with the line of every row and clear errors; and write tables."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cellseg_d2.errors import CellSegError, no_memory
from cellseg_d2.io.atomic import write_text_atomic

_GZIP_MAGIC = b"\x1f\x8b"
# The competition's own file has 24 MB, packed 6 MB. A small one can be packed so that it unpacks to any size.
_MAX_UNPACKED, _DENSEST, _SMALL = 10**9, 50, 2**25
# Fields that are in memory beside the table, and commas of a header: a short file can stand for any number of fields.
_CHUNK_VALUES, _MAX_COLUMNS = 2**20, 10_000
# Characters with which spreadsheets begin a formula, also after apostrophes, see `spreadsheet_text`.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_csv_table(path: str | Path, required: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read columns of a CSV as text.

    Gzip is detected by the file's content; a byte order mark and blank lines are skipped. An apostrophe before what
    spreadsheets would read as a formula is removed, see :func:`spreadsheet_text`.

    Args:
        path: path of the file.
        required: columns that must be there.
        optional: columns that are read where they are there.

    Returns:
        One row per line with the required columns and the optional ones that exist, all ``str``; an absent field or
        one that says NaN is ``""``. The index is the line in the file, the header being line 1.

    Raises:
        CellSegError: the file is missing, empty, damaged, no CSV with commas, or lacks a column or has it twice.
    """
    path = Path(path)
    try:
        return _read_table(path, _read_bytes(path), required, optional)
    except MemoryError:
        raise no_memory(path) from None


def _read_table(path: Path, data: bytes, required: Sequence[str], optional: Sequence[str]) -> pd.DataFrame:
    blank = len(data) - len(data.lstrip(b"\r\n"))
    skipped, data = len(data[:blank].splitlines()), data[blank:]
    first_line = data[: data.find(b"\n") if b"\n" in data else len(data)].decode().strip()
    if not first_line:
        raise CellSegError(f"{path} is empty; it needs the columns {','.join(required)}")
    if "," not in first_line and len(required) > 1:
        for separator, name in _OTHER_SEPARATORS.items():
            if separator in first_line:
                raise CellSegError(f"{path} separates its columns by {name}; save it with commas")
    if (commas := first_line.count(",")) > _MAX_COLUMNS:
        raise CellSegError(f"{path} has {commas} commas in its header, which no table of cells has")
    chunks: list[pd.DataFrame] = []
    try:
        options = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False}
        for chunk in pd.read_csv(io.BytesIO(data), chunksize=max(1, _CHUNK_VALUES // (commas + 1)), **options):
            if not isinstance(chunk.index, pd.RangeIndex):  # pandas took the first column for row names
                raise CellSegError(f"{path} cannot be read as CSV: its rows have more fields than its header has names")
            if not chunks:
                _check_columns(path, data, chunk.columns, required, optional)
            chunks.append(_without_blanks(chunk[[*required, *(name for name in optional if name in chunk)]]))
    except (ValueError, pd.errors.ParserError) as error:  # pandas names the line
        raise CellSegError(f"{path} cannot be read as CSV: {str(error).splitlines()[0].strip()}") from None
    table = pd.concat(chunks)
    table.index += skipped + 2  # without blank lines before it, the header is line 1
    return table


def _check_columns(
    path: Path, data: bytes, columns: pd.Index, required: Sequence[str], optional: Sequence[str]
) -> None:
    missing = [name for name in required if name not in columns]
    if missing:
        names = ", ".join(map(repr, missing))
        shown = ",".join(map(str, columns))
        raise CellSegError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {names}: "
            f"it needs {','.join(required)} and has {shown[:200]}"
        )
    twice = [name for name in (*required, *optional) if f"{name}.1" in columns and _header(data).count(name) > 1]
    if twice:
        raise CellSegError(f"{path} has several columns {twice[0]!r}; keep the one that is meant")


def _without_blanks(chunk: pd.DataFrame) -> pd.DataFrame:
    """Rows in which something stands, as plain text without spaces around it and without what stands for nothing."""
    chunk = chunk.fillna("")
    for name in chunk:
        chunk[name] = chunk[name].str.strip().replace({"nan": "", "NaN": "", "NAN": ""})
        quoted = chunk[name].str.startswith("'")
        if quoted.any():
            chunk[name] = chunk[name].mask(quoted, chunk[name][quoted].map(plain_text))
    return chunk[(chunk != "").any(axis=1)]


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
    return table.assign(**{name: table[name].map(spreadsheet_text, na_action="ignore") for name in texts})


def short_number(value: float) -> str:
    """Four significant digits, and all of those before the decimal point.

    Example:
        >>> [short_number(value) for value in (0.79181249, 152.5131, 12345.67, 2.0)]
        ['0.7918', '152.5', '12346', '2']
    """
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def csv_text(table: pd.DataFrame) -> str:
    """A table without its index as CSV: commas, decimal points, :func:`spreadsheet_text` and :func:`short_number`."""
    return spreadsheet_table(table).to_csv(index=False, float_format=short_number, lineterminator="\n")


def write_csv_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write :func:`csv_text` in UTF-8 atomically."""
    write_text_atomic(path, csv_text(table))


def _header(data: bytes) -> list[str]:
    """Names of the columns, of which pandas has numbered those that occur again."""
    return next(csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline="")))


def _read_bytes(path: Path) -> bytes:
    """What the file holds, unpacked: text in UTF-8 without a byte order mark."""
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP_MAGIC):
            with gzip.open(path) as file:
                limit = min(_MAX_UNPACKED, max(_SMALL, _DENSEST * len(data)))
                data = file.read(limit + 1)
            if len(data) > limit:
                raise CellSegError(f"{path} unpacks to more than {limit / 1e6:,.0f} MB, which no such CSV does")
        if b"\0" in data:  # pandas would end a field there
            raise CellSegError(f"{path} is not text in UTF-8 (it has NUL characters); save it as CSV in UTF-8")
        data = data.removeprefix(codecs.BOM_UTF8)
        data.decode()
        return data
    except FileNotFoundError:
        raise CellSegError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise CellSegError(f"{path} is a folder; name the CSV file in it") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise CellSegError(f"{path} is a damaged or truncated gzip file; copy or download it again") from None
    except UnicodeDecodeError as error:
        raise CellSegError(f"{path} is not text in UTF-8 (byte {error.start}); save it as CSV in UTF-8") from None
    except OSError as error:
        raise CellSegError(f"{path} cannot be read: {error.strerror or error}") from None
