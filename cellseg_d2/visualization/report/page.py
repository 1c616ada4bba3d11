"""Render the data of a run and of predictions as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

import cellseg_d2
from cellseg_d2.io.progress import track
from cellseg_d2.metrics.error_report import ErrorReport
from cellseg_d2.metrics.error_types import DEFINITIONS, PREDICTED_KINDS, TRUE_KINDS
from cellseg_d2.visualization.comparison import FALSE_POSITIVE, MATCHED, MISSED
from cellseg_d2.visualization.curves import scored_types, training_figure
from cellseg_d2.visualization.error_plots import PREDICTED_PAPER, TRUE_PAPER
from cellseg_d2.visualization.figures import LINE_COLORS, TYPE_LINE_COLORS, type_line_colors
from cellseg_d2.visualization.overlays import PALETTE, RGB, type_color
from cellseg_d2.visualization.report.cells import ReportCells, ReportImage
from cellseg_d2.visualization.report.charts import as_svg, count_figure, size_figures, threshold_figure
from cellseg_d2.visualization.report.config_diff import Difference
from cellseg_d2.visualization.report.pictures import picture
from cellseg_d2.visualization.report.run_folder import RunData
from cellseg_d2.visualization.report.shapes import RARE, ReportShapes

SCRIPTS = ("gallery.js", "tables.js")
TRUTH: RGB = PALETTE[0]
PREDICTION: RGB = PALETTE[1]
AT_HALF = " at IoU\N{NO-BREAK SPACE}>\N{NO-BREAK SPACE}0.5"
# The CSS variables that stand for the colours of lines, which are others on a dark ground.
CHART_COLORS = {color: f"--s{place}" for place, color in enumerate(LINE_COLORS)}
CHART_COLORS |= {color: f"--own-{name}" for name, color in TYPE_LINE_COLORS.items() if color not in LINE_COLORS}


def render_report(
    run: RunData | None = None,
    cells: ReportCells | None = None,
    shapes: ReportShapes | None = None,
    *,
    title: str = "",
    differences: Sequence[Difference] | None = None,
    base_name: str = "the defaults",
    max_images: int = 60,
    image_width: int = 900,
) -> str:
    """The page about a run, about predictions, or about both.

    Names of files, types and keys are text from outside: everything but the package's own files is escaped.

    Args:
        run: see :func:`cellseg_d2.visualization.report.run_folder.read_run`.
        cells: see :func:`cellseg_d2.visualization.report.cells.gather_cells`.
        shapes: the shapes of these cells, see :func:`cellseg_d2.visualization.report.shapes.gather_shapes`.
        title: title of the page; by default made of the folders' names.
        differences: differences of the run's configuration from a base; None if they were not compared.
        base_name: what the configuration was compared with.
        max_images: largest number of pictures, the first ones of ``cells``; tables and charts are about all images.
        image_width: width of the pictures in pixels; smaller images stay as they are.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    # Compact, and the pictures in their order.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    environment.filters["number"] = _number
    template = environment.from_string(_file("template.html"))
    types = sorted({*(cells.cell_types if cells else ()), *(scored_types(run.scores) if run else ())})
    with_files = [image for image in cells.images if image.path is not None] if cells else []
    shown = with_files[:max_images]
    pictures = {image.name: picture(image, image_width) for image in track(shown, "drawing")}
    return template.render(
        version=cellseg_d2.__version__,
        title=title or _title(run, cells),
        summary=_summary(run, cells),
        tiles=_tiles(run, cells),
        css=Markup(_file("report.css")),
        colors=Markup(_color_css(types)),
        script=Markup("\n".join(_file(name) for name in SCRIPTS)),
        run=run,
        record=run.record if run else {},
        cells=cells,
        shapes=shapes,
        rare=RARE,
        errors=cells.errors if cells else None,
        types=types,
        shown=shown,
        with_files=len(with_files),
        order="the lowest scores" if cells and cells.errors else "the most cells",
        layers=_layers(cells),
        payload={"pictures": pictures},
        charts={
            place: [as_svg(figure, CHART_COLORS) for figure in figures]
            for place, figures in report_figures(run, cells, types).items()
        },
        kinds=_kinds(cells.errors) if cells and cells.errors else [],
        # The largest first.
        gains=sorted(cells.errors.gains.items(), key=lambda gain: -gain[1]) if cells and cells.errors else [],
        definitions=DEFINITIONS,
        rows=[_row(image, bool(cells.cell_types)) for image in cells.images] if cells else [],
        differences=differences,
        base_name=base_name,
        notes=[*(run.notes if run else ()), *(cells.notes if cells else ())],
    )


@matplotlib.rc_context({"text.parse_math": False})
def report_figures(run: RunData | None, cells: ReportCells | None, types: Sequence[str]) -> dict[str, list[Figure]]:
    """The charts of each section, as far as there is something to be drawn; ``types`` are all that have a colour."""
    colors, training = type_line_colors(types), []
    if run is not None and (len(run.losses) or len(run.scores)):
        training = [training_figure(run.losses, run.scores, colors)]
    return {
        "training": training,
        "scores": [threshold_figure(cells, colors)] if cells and cells.errors else [],
        "counts": [count_figure(cells, colors), *size_figures(cells)] if cells else [],
    }


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _number(value: float | None, digits: int = 3) -> str:
    """``–`` for what is undefined, thousands apart for whole numbers."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def _title(run: RunData | None, cells: ReportCells | None) -> str:
    if run is not None:
        return f"Training run {run.folder.resolve().name}"
    return f"Predictions {cells.predictions[0].resolve().parent.name}" if cells is not None else "Report"


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _summary(run: RunData | None, cells: ReportCells | None) -> str:
    """A line with the most important results."""
    parts = []
    if run is not None and len(run.losses):
        parts.append(f"Trained for {_count(int(run.losses['iteration'].max()) + 1, 'iteration')}.")
    if run is not None and run.best is not None:
        parts.append(f"Best validation score {run.best[0]:.3f}, at iteration {run.best[1]:,}.")
    if cells is not None:
        images, found = _count(len(cells.images), "image"), sum(image.predicted_count for image in cells.images)
        if cells.errors is None:
            parts.append(f"{_count(found, 'cell')} predicted in {images}.")
        else:
            true = sum(image.true_count for image in cells.images)
            score = cells.errors.score.mean
            parts.append(f"Score {score:.3f} on {images}: {_count(found, 'cell')} predicted, {true:,} true.")
    return " ".join(parts) or "Nothing has been measured yet."


def _tiles(run: RunData | None, cells: ReportCells | None) -> list[tuple[str, str, str]]:
    """Label, figure and remark of the headline figures."""
    tiles = []
    if cells is not None and cells.errors is not None:
        score = cells.errors.score
        tiles.append(("Score", _number(score.mean), "mean over IoU 0.50 … 0.95 and images"))
        tiles.append(("Precision", _number(score.precision), f"{score.tp:,} of {score.tp + score.fp:,}{AT_HALF}"))
        tiles.append(("Recall", _number(score.recall), f"{score.tp:,} of {score.tp + score.fn:,}{AT_HALF}"))
    if cells is not None:
        predicted = sum(image.predicted_count for image in cells.images)
        tiles.append(("Predicted cells", _number(predicted), f"in {_count(len(cells.images), 'image')}"))
    if run is not None and run.best is not None:
        tiles.append(("Best validation score", _number(run.best[0]), f"at iteration {run.best[1]:,}"))
    if run is not None and len(run.losses):
        last = run.losses["total_loss"].dropna()
        mean = float(last.tail(20).mean()) if len(last) else None
        done = int(run.losses["iteration"].max()) + 1
        tiles.append(("Last loss", _number(mean), f"mean of the last {min(20, len(last))} of {done:,} iterations"))
    return tiles


def _layers(cells: ReportCells | None) -> list[tuple[str, str]]:
    if cells is None:
        return []
    if cells.errors is None:
        return [("image", "Image"), ("prediction", "Prediction")]
    return [("image", "Image"), ("truth", "Truth"), ("prediction", "Prediction"), ("errors", "Errors")]


def _row(image: ReportImage, with_type: bool) -> dict:
    """One line of the table of images, with a column of types where there are some."""
    row = {"name": image.name} | ({"type": image.cell_type or ""} if with_type else {})
    if image.errors is None:
        return row | {"predicted": image.predicted_count}
    score = image.errors.score
    row |= {"score": score.score, "true": score.true, "predicted": score.predicted}
    row |= {"tp": score.tp[0], "fp": score.fp[0], "fn": score.fn[0]}
    row |= {kind: image.errors.true_counts[kind] for kind in TRUE_KINDS[1:]}
    return row | {kind: image.errors.predicted_counts[kind] for kind in PREDICTED_KINDS[2:]}


def _kinds(errors: ErrorReport) -> list[dict]:
    """For the true and the predicted cells, for all and for each type: what became of how many."""
    reports = {"all": errors, **(errors.by_type if len(errors.by_type) > 1 else {})}
    sides = (("True cells", TRUE_PAPER, "true_counts"), ("Predicted cells", PREDICTED_PAPER, "predicted_counts"))
    return [
        {
            "title": title,
            "colors": colors,
            "rows": [(name, getattr(report.whole, counts)) for name, report in reports.items()],
        }
        for title, colors, counts in sides
    ]


def _css_color(rgb: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _color_css(types: Sequence[str]) -> str:
    """Colours as CSS variables, for the light and for the dark scheme."""
    images = {"truth": TRUTH, "prediction": PREDICTION, "hit": MATCHED, "false": FALSE_POSITIVE, "missed": MISSED}
    light = {name: _css_color(rgb) for name, rgb in images.items()}
    light |= {f"s{place}": color for place, color in enumerate(LINE_COLORS)}
    grounded = [*(_css_color(rgb) for rgb in (*PALETTE[1:], PALETTE[0])), LINE_COLORS[-1]]
    dark = {f"s{place}": color for place, color in enumerate(grounded)}
    for name, color in TYPE_LINE_COLORS.items():
        light[f"own-{name}"], dark[f"own-{name}"] = color, _css_color(type_color(name, [name]))
    for place, color in enumerate(type_line_colors(types).values()):
        light[f"t{place}"] = f"var({CHART_COLORS[color]})"
    blocks = [";".join(f"--{name}:{color}" for name, color in scheme.items()) for scheme in (light, dark)]
    return f":root{{{blocks[0]}}}@media (prefers-color-scheme:dark){{:root{{{blocks[1]}}}}}"
