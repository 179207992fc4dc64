"""parameters.png of a sweep: each parameter against the metric."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from lit_gen.sweeps.space import Parameter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lit_gen.sweeps.study import SweepStudy

COLUMNS = 3
BLUE, ORANGE, GREY = "#1f6fb4", "#e07b00", "#9a9a9a"


def draw_parameters(study: "SweepStudy", trials: list[FrozenTrial], best: FrozenTrial, path: Path) -> None:
    """One panel a parameter: complete trials in blue, the best as a star, pruned and failed ones in grey.

    Args:
        study: the sweep.
        trials: all of them.
        best: the best one.
        path: the PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from lit_gen.sweeps.report import short_names, varied

    parameters = varied(study.sweep)
    names = short_names([parameter.name for parameter in parameters])
    columns = min(COLUMNS, len(parameters))
    rows = math.ceil(len(parameters) / columns)
    figure = Figure(figsize=(max(4.2 * columns, 6), 3.5 * rows + 0.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    valued = [trial for trial in trials if trial.value is not None and math.isfinite(trial.value)]
    low, high = value_range([trial.value for trial in valued])
    low, high = min(low, best.value), max(high, best.value)
    for number, panel in enumerate(panels.flat):
        if number >= len(parameters):
            panel.axis("off")
            continue
        draw_panel(panel, study, parameters[number], trials, best, (low, high))
        panel.set_xlabel(names[number])
        if number % columns == 0:
            panel.set_ylabel(study.sweep.metric)
    states = {trial.state for trial in trials}
    beyond = any(not low <= trial.value <= high for trial in valued)
    handles = [
        Line2D([], [], marker="o", color=BLUE, linestyle="", label="complete"),
        Line2D([], [], marker="*", color=ORANGE, linestyle="", markersize=13, label=f"best: trial {best.number}"),
    ]
    if beyond:
        label = "hollow: beyond the range, at its edge"
        handles.append(Line2D([], [], marker="o", color=GREY, markerfacecolor="none", linestyle="", label=label))
    if TrialState.PRUNED in states:
        handles.append(Line2D([], [], marker="v", color=GREY, linestyle="", label="pruned, at its last value"))
    if TrialState.FAIL in states:
        handles.append(Line2D([], [], marker="x", color=GREY, linestyle="", label="failed"))
    title = f"{study.folder.name}: {study.sweep.metric} ({study.sweep.goal}), best {best.value:.5g}"
    figure.suptitle(title, fontsize=11)
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)


def draw_panel(
    panel: "Axes",
    study: "SweepStudy",
    parameter: Parameter,
    trials: list[FrozenTrial],
    best: FrozenTrial,
    ylim: tuple[float, float],
) -> None:
    """The trials over one parameter."""
    low, high = ylim
    for trial in trials:
        if parameter.name not in trial.params:
            continue
        draw = trial.params[parameter.name]
        x = draw + jitter(trial.number) if parameter.choices is not None else parameter.value(draw)
        if trial.state == TrialState.FAIL:
            # no value: at the edge that means bad
            panel.plot(x, 0.02 if study.sweep.goal == "maximize" else 0.98, "x", color=GREY, markersize=6,
                       transform=panel.get_xaxis_transform(), clip_on=False)  # fmt: skip
        elif trial.number == best.number:
            panel.plot(x, trial.value, "*", color=ORANGE, markersize=16, markeredgecolor="white", zorder=5)
        elif trial.value is not None and math.isfinite(trial.value):
            marker, colour = ("v", GREY) if trial.state == TrialState.PRUNED else ("o", BLUE)
            y = min(max(trial.value, low), high)
            fill = "full" if y == trial.value else "none"
            panel.plot(x, y, marker, color=colour, alpha=0.8, markersize=6, fillstyle=fill)
    margin = 0.06 * (high - low) or 0.5
    panel.set_ylim(low - margin, high + margin)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    label_axis(panel, parameter)


def label_axis(panel: "Axes", parameter: Parameter) -> None:
    """The whole range of a parameter, or its choices in columns."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    from lit_gen.sweeps.report import brief

    if parameter.choices is not None:
        labels = [brief(choice).replace("(", "\n(") for choice in parameter.choices]
        long = sum(max(map(len, label.split("\n"))) + 2 for label in labels) > 56
        panel.set_xticks(range(len(labels)), labels, rotation=25 if long else 0, ha="right" if long else "center",
                         rotation_mode="anchor" if long else "default", fontsize=8 if long else 9)  # fmt: skip
        panel.set_xlim(-0.5, len(labels) - 0.5)
        return
    low, high = (parameter.value(end) for end in parameter.ends())
    if parameter.log:
        few = math.log10(high / low) < 3
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if few else (1.0,)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        margin = (high / low) ** 0.05
        panel.set_xlim(low / margin, high * margin)
    elif high > low:
        margin = 0.05 * (high - low)
        panel.set_xlim(low - margin, high + margin)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=parameter.integer))


def value_range(values: list[float]) -> tuple[float, float]:
    """What is shown of the values: all, or without the far outliers on one side, which are drawn at the edge."""
    ordered = sorted(values)
    quarter, middle, three_quarters = (ordered[int(q * (len(ordered) - 1))] for q in (0.25, 0.5, 0.75))
    spread = max(three_quarters - quarter, 1e-12 * abs(middle))
    inside = [value for value in ordered if quarter - 6 * spread <= value <= three_quarters + 6 * spread]
    return inside[0], inside[-1]


def jitter(number: int) -> float:
    """A place beside the middle of a column, different for neighbouring trials and always the same."""
    return 0.36 * ((number * 0.6180339887) % 1 - 0.5)
