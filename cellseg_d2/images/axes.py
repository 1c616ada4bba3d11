"""What the axes of an image mean, and which of its planes are wanted: one rule for arrays and for files of all kinds.

Axes have names of one letter, as in OME: T time, C channels, Z depth, Y rows, X columns, and S for the colours of a
pixel (red, green, blue and maybe alpha; or grey and alpha). A file's metadata name them; of an array its shape may tell
(:func:`cellseg_d2.images.arrays.array_layout`). Any other letter is an axis of planes of which nothing more is known.

Axes of length 1 do not matter. Colours become grey, unless one is chosen. Channels and planes are never mixed nor left
out unasked: what :class:`PlaneChoice` does not settle is refused, by a sentence that names the option that would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.errors import ImageError

PROJECTIONS = ("max", "mean")
COLOURS = ("red", "green", "blue", "alpha")
# Names of axes in arrays that name them, by their letters here; others are unknown.
_WORDS = {"time": "T", "frame": "T", "channel": "C", "depth": "Z", "row": "Y", "column": "X", "col": "X"}


class AxesError(ImageError):
    """Axes that could mean several things, or a choice that does not fit them."""


@dataclass(frozen=True)
class Layout:
    """The axes of an image as it is stored.

    Attributes:
        names: a letter an axis, each once, Y and X among them; small letters where nothing is known.
        shape: lengths of the axes.
        channels: names of the channels along C, as far as they are known.
    """

    names: str
    shape: tuple[int, ...]
    channels: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.length("Y")

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.length("X")

    def length(self, name: str) -> int:
        """Of an axis; 1 if there is none of this name."""
        return self.shape[self.names.index(name)] if name in self.names else 1


@dataclass(frozen=True)
class PlaneChoice:
    """Which grey planes of an image are wanted.

    Attributes:
        channel: its number, from 0, or its name; of colours ``"red"``, ``"green"`` or ``"blue"``.
        projection: ``"max"`` or ``"mean"`` over depth; where there is no depth, over the only axis of planes.
        stack: whether all planes are wanted, one by one, those along time outermost.
        axes: their names, such as ``"TCYX"``, instead of those that the image tells; axes of length 1 may be left out.
        scene: of a file with several images, the number of one, from 0, or its name.

    Raises:
        CellSegError: there is no such projection, or the axes are none.
    """

    channel: int | str | None = None
    projection: str | None = None
    stack: bool = False
    axes: str | None = None
    scene: int | str | None = None

    def __post_init__(self) -> None:
        if self.projection is not None and self.projection not in PROJECTIONS:
            raise CellSegError(f"there is no projection {self.projection!r}, only {' and '.join(PROJECTIONS)}")
        if self.axes is not None:
            names = self.axes.upper()
            if not (names.isalpha() and len(set(names)) == len(names) and {"Y", "X"} <= set(names)):
                raise CellSegError(
                    f"axes are letters, each once, with Y and X among them, such as TCYX, not {self.axes!r}"
                )
            object.__setattr__(self, "axes", names)


# What is wanted of an image that is one grey plane.
ONE_PLANE = PlaneChoice()


@dataclass(frozen=True)
class Plane:
    """One grey plane of an image.

    Attributes:
        stored: which of the stored planes it is made of: the place along every axis but Y and X, and S where its
            colours become grey. Several are projected.
        projection: how.
        suffix: tells it from the others of a stack, such as ``_t003``; empty where there are no others.
    """

    stored: tuple[Mapping[str, int], ...]
    projection: str | None = None
    suffix: str = ""


def choose_planes(
    layout: Layout, choice: PlaneChoice | None = ONE_PLANE, origin: str | Path = "the array"
) -> list[Plane]:
    """The planes of an image that are wanted; exactly one, unless a stack is.

    Args:
        layout: of the image.
        choice: which planes; None where users have no choice, so that they are told to save the plane.
        origin: of the image, for messages: a path, or some words.

    Raises:
        AxesError: the image has several channels or planes of which one must be chosen, or not what was chosen.
    """
    wanted = choice or PlaneChoice()
    ask = _Questions(layout, origin, choice is not None)
    lengths = {
        name: length
        for name, length in zip(layout.names, layout.shape, strict=True)
        if name not in "YX" and (length > 1 or name == "S")
    }
    base = {name: 0 for name in layout.names if name not in "YXS"}
    colours = lengths.pop("S", None)
    if (colours or 0) > len(COLOURS):
        raise AxesError(f"{origin} has {colours} values a pixel along S, which are no colours: channels are called C")
    if wanted.channel is not None:
        axis, names = _channel_axis(lengths, colours, layout, ask)
        number = choose_one(wanted.channel, names, f"{origin} has", "channel")
        if axis:
            base[axis] = number
            lengths.pop(axis, None)
    elif lengths.get("C", 1) > 1:
        raise ask.for_channel()
    along = _projected(wanted, lengths, ask)
    depth = range(lengths.pop(along)) if along else range(0)
    if lengths and not wanted.stack:
        raise ask.for_planes(lengths)
    order = sorted(lengths, key=lambda name: name != "T")
    planes = []
    for places in product(*(range(lengths[name]) for name in order)):
        place = base | dict(zip(order, places, strict=True))
        stored = tuple(place | {along: z} for z in depth) if along else (place,)
        suffix = "".join(_suffix(name, n, lengths[name]) for name, n in zip(order, places, strict=True))
        planes.append(Plane(stored, wanted.projection if along else None, suffix))
    return planes


def renamed(layout: Layout, names: str, origin: str | Path = "the array") -> Layout:
    """A layout by the names that users give its axes; those of length 1 may be left out.

    Raises:
        AxesError: there are not as many axes.
    """
    given = names.upper()
    if len(given) != len(layout.shape):
        long = [number for number, length in enumerate(layout.shape) if length > 1]
        if len(given) != len(long):
            raise AxesError(f"{origin} has the shape {shape_text(layout.shape)}, to which the axes {given} do not fit")
        own = dict(zip(long, given, strict=True))
        free = unknown_names(len(layout.shape))
        given = "".join(own.get(number, free[number]) for number in range(len(layout.shape)))
    return replace(layout, names=given)


def choose_one(wanted: int | str, names: Sequence[str], has: str, kind: str) -> int:
    """The place of what is wanted, a number from 0 or a name in any case, among ``names``, of which some may be empty.

    Args:
        wanted: the number or name.
        names: of all that there are.
        has: begins the message, such as ``"a.tif has"``.
        kind: of what there is, such as ``"channel"``.

    Raises:
        AxesError: there is none.
    """
    text = str(wanted).strip()
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    found = [number for number, name in enumerate(names) if name and name.casefold() == text.casefold()]
    if len(found) != 1:
        few = f"{len(names)} {kind}s" if len(names) > 1 else f"one {kind}"
        missing = f"several are {text!r}" if found else f"none is {text!r}"
        raise AxesError(f"{has} {few} ({listed(names)}), of which {missing}")
    return found[0]


def choose_scene(wanted: int | str | None, names: Sequence[str], origin: str | Path) -> int:
    """The place of the image that is wanted of a file with several, by number or name; of a single one 0.

    Raises:
        AxesError: none was chosen, or there is no such image.
    """
    if wanted is not None:
        return choose_one(wanted, names, f"{origin} has", "scene")
    if len(names) > 1:
        raise AxesError(f"{origin} holds {len(names)} images ({listed(names)}): choose one with --scene N")
    return 0


def listed(names: Sequence[str]) -> str:
    """Numbers, and names where there are any, for messages."""
    if not any(names):
        return "0" if len(names) == 1 else f"0 to {len(names) - 1}"
    shown = [f"{number} {name}".strip() for number, name in enumerate(names)]
    return ", ".join(shown if len(shown) < 9 else [*shown[:8], "…"])


def unknown_names(count: int) -> str:
    """Names of axes of which nothing is known, by their places."""
    return "".join(chr(ord("a") + number) for number in range(count))


def axis_names(words: Sequence[object]) -> str | None:
    """Letters of axes that are called so, such as ``time`` or ``z``; None unless rows and columns are among them."""
    letters = list(unknown_names(len(words)))
    for number, word in enumerate(words):
        letter = _WORDS.get(str(word).lower(), str(word).upper())
        if len(letter) == 1 and letter.isalpha() and letter not in letters:
            letters[number] = letter
    return "".join(letters) if {"Y", "X"} <= set(letters) else None


def shape_text(shape: Sequence[int]) -> str:
    """Lengths of axes for messages."""
    return " × ".join(map(str, shape)) or "of a single number"


def _channel_axis(
    lengths: dict[str, int], colours: int | None, layout: Layout, ask: _Questions
) -> tuple[str | None, Sequence[str]]:
    """The axis along which a channel is chosen, None if there is none, and the names of the channels."""
    if lengths.get("C", 1) > 1 or (colours is None and "C" in layout.names):
        count = layout.length("C")
        return "C", (*layout.channels[:count], *[""] * (count - len(layout.channels)))
    if colours is not None:
        return "S", COLOURS[:colours] if colours > 2 else ("grey", "alpha")[:colours]
    unknown = [name for name in lengths if name not in "TZ"]
    if len(unknown) > 1:
        raise ask.for_names()
    return (unknown[0], [""] * lengths[unknown[0]]) if unknown else (None, [""])


def _projected(wanted: PlaneChoice, lengths: dict[str, int], ask: _Questions) -> str | None:
    """The axis over which planes are projected, if they are."""
    if wanted.projection is None or not lengths:
        return None
    if "Z" in lengths:
        return "Z"
    if len(lengths) > 1:
        raise ask.for_names()
    return next(iter(lengths))


def _suffix(name: str, number: int, length: int) -> str:
    letter = name.lower() if name in "TZ" else ""
    return f"_{letter}{number:0{max(3, len(str(length - 1)))}d}"


@dataclass(frozen=True)
class _Questions:
    """What users are asked where an image could mean several things; by options of the shell where it is a file."""

    layout: Layout
    origin: str | Path
    can_choose: bool

    def for_channel(self) -> AxesError:
        count = self.layout.length("C")
        names = (*self.layout.channels[:count], *[""] * (count - len(self.layout.channels)))
        has = f"{self.origin} has {count} channels ({listed(names)})"
        return self._error(has, f"choose the one in which cells are seen with {self._option('channel', 'N')}")

    def for_planes(self, lengths: Mapping[str, int]) -> AxesError:
        known = " and ".join(f"{name} {length}" for name, length in lengths.items() if name in "TZ")
        has = f"{self.origin} is a stack of shape {shape_text(self.layout.shape)}"
        unknown = [name for name in lengths if name not in "TZ"]
        ways = f"{self._option('stack')} for all planes one by one, {self._option('projection', 'max')} to project them"
        if not unknown:
            return self._error(f"{has} ({known})", ways)
        if len(lengths) > 1:
            return self.for_names()
        length = lengths[unknown[0]]
        axis = self.layout.names.index(unknown[0])
        rgb = f", channel_axis={axis} for colours" if length in (3, 4) and not isinstance(self.origin, Path) else ""
        has = f"{has}, and nothing tells whether axis {axis} is that of channels or of planes"
        return self._error(has, f"{self._option('channel', 'N')} for one of {length} channels{rgb}, {ways}")

    def for_names(self) -> AxesError:
        has = f"{self.origin} is a stack of shape {shape_text(self.layout.shape)}, and nothing tells what its axes are"
        return self._error(has, f"name them all with {self._option('axes', 'TCYX')}")

    def _error(self, has: str, ways: str) -> AxesError:
        return AxesError(
            f"{has}; save the plane that is meant as an image" if not self.can_choose else f"{has}: {ways}"
        )

    def _option(self, name: str, value: str = "") -> str:
        if isinstance(self.origin, Path):
            return f"--{name} {value}".strip()
        return f"{name}={value if value in ('N', '') else repr(value)}" if value else f"{name}=True"
