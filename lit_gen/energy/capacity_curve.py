"""The callback that draws the capacity of the Hopfield network at the end of a test."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lit_gen.core.distributed import from_rank_zero
from lit_gen.core.errors import UsageError
from lit_gen.energy.hopfield_capacity import ALPHA_C, RECALLED, RecallCurve, recall_curves, size_crossing

LEVEL = 0.9  # recall rate that defines the capacity of one N
LOADS = {
    "hebbian": (0.06, 0.08, 0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17, 0.18, 0.20, 0.24),
    "pseudo_inverse": (0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.95),
}


class CapacityCurve(Callback):
    """Recall rate of random patterns against the load P / N, for both storage rules, on the CPU of the first process.

    It concerns the rules, not the model under test: the networks are its own, of +1 and -1 at random. Writes
    ``samples/capacity.png`` and ``samples/capacity.csv`` to the run directory and logs, for the Hebbian rule and recall from
    the stored pattern, ``test/capacity_N`` (the load up to which 90 % of the patterns are recalled, for each size N) and, with
    two sizes or more, ``test/capacity_crossing`` (of the curves of the smallest and the largest N; see
    :mod:`lit_gen.energy.hopfield_capacity` for what finite size does to either).

    Attributes:
        record: after a test, by logged name, how it was estimated, with the standard error.

    Args:
        sizes: numbers of units, ascending.
        trials: networks for each load, one number for each size.
        loads: of the Hebbian rule; the loads of the pseudo-inverse rule are 0.1 to 0.95.
        flip: fraction of inverted units in the second kind of start.
        pseudo_inverse: whether to draw that rule as well.
        seed: of the patterns.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(
        self,
        sizes: list[int] | None = None,
        trials: list[int] | None = None,
        loads: list[float] | None = None,
        flip: float = 0.1,
        pseudo_inverse: bool = True,
        seed: int = 0,
    ) -> None:
        sizes, trials = sizes or [200, 1000], trials or [100, 6]
        if sizes != sorted(set(sizes)) or sizes[0] < 2:
            raise UsageError(f"sizes = {sizes}; accepted: ascending numbers of units, 2 or more")
        if len(trials) != len(sizes) or min(trials) < 1:
            raise UsageError(f"trials = {trials}; accepted: {len(sizes)} numbers of 1 or more, one for each size")
        if loads is not None and (loads != sorted(set(loads)) or len(loads) < 2 or loads[0] <= 0):
            raise UsageError(f"loads = {loads}; accepted: two or more ascending numbers above 0")
        if not 0 < flip < 0.5:
            raise UsageError(f"flip = {flip}; accepted: 0 < flip < 0.5")
        self.sizes, self.trials, self.flip, self.seed = sizes, trials, flip, seed
        self.loads = {**LOADS, "hebbian": tuple(loads or LOADS["hebbian"])}
        self.rules = ("hebbian", "pseudo_inverse") if pseudo_inverse else ("hebbian",)
        self.record: dict[str, dict[str, Any]] = {}

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:
            return
        started = time.perf_counter()
        curves = from_rank_zero(self.simulate)
        self.record = self.estimates(curves, time.perf_counter() - started)
        self.log_dict({name: float(entry["value"]) for name, entry in self.record.items()})
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir) / "samples"
            folder.mkdir(parents=True, exist_ok=True)
            write_csv(curves, folder / "capacity.csv")
            draw(curves, {name: entry["value"] for name, entry in self.record.items()}, folder / "capacity.png")

    def simulate(self) -> list[RecallCurve]:
        """All curves: of each rule and size, from the stored pattern and from a corrupted one."""
        curves = []
        for rule in self.rules:
            for units, trials in zip(self.sizes, self.trials):
                n = trials if rule == "hebbian" else -(-trials // 4)  # its networks hardly differ from each other
                curves += recall_curves(rule, units, self.loads[rule], n, (0.0, self.flip), seed=self.seed)
        return curves

    def estimates(self, curves: list[RecallCurve], seconds: float) -> dict[str, dict[str, Any]]:
        """The logged values with their estimators."""
        hebbian = {curve.units: curve for curve in curves if curve.rule == "hebbian" and curve.flip == 0}
        corrupted = {curve.units: curve for curve in curves if curve.rule == "hebbian" and curve.flip > 0}
        about = {"rule": "hebbian", "start": "stored pattern", "recalled_from_overlap": RECALLED, "theory": ALPHA_C}
        about |= {"seed": self.seed, "seconds_of_all_curves": seconds}
        found = {}
        for units, curve in hebbian.items():
            value, stderr = curve.load_at(LEVEL)
            found[f"test/capacity_{units}"] = {
                "value": value, "stderr": stderr, "recall_rate": LEVEL, "networks": curve.rates.shape[1], **about,
                "load_of_half_recall": curve.load_at(0.5)[0], f"from_{self.flip}_flipped": corrupted[units].load_at(LEVEL)[0],
            }  # fmt: skip
        smallest, largest = hebbian[self.sizes[0]], hebbian[self.sizes[-1]]
        if len(self.sizes) > 1 and len(smallest.loads) == len(largest.loads):
            value, stderr = size_crossing(smallest, largest)
            found["test/capacity_crossing"] = {
                "value": value, "stderr": stderr, "sizes": [smallest.units, largest.units], **about
            }  # fmt: skip
        return found


def write_csv(curves: list[RecallCurve], path: Path) -> None:
    """One row for each rule, size, start and load: rate and overlap with their standard errors over networks."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["rule", "units", "flip", "load", "networks", "recall_rate", "stderr", "overlap", "overlap_stderr"]
        )
        for curve in curves:
            for load, rates, overlaps in zip(curve.loads.tolist(), curve.rates, curve.overlaps):
                n = len(rates)
                numbers = [load, n]
                for values in (rates, overlaps):
                    numbers += [values.mean().item(), values.std().item() / math.sqrt(n) if n > 1 else ""]
                writer.writerow([curve.rule, curve.units, curve.flip, *numbers])


def draw(curves: list[RecallCurve], estimates: dict[str, float], path: Path) -> None:
    """The Hebbian transition (left), and both rules over all loads (right)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    rules = {curve.rule for curve in curves}
    left, *rest = figure.subplots(1, len(rules), squeeze=False)[0]
    colours = {units: f"C{i}" for i, units in enumerate(sorted({curve.units for curve in curves}))}
    for curve in (c for c in curves if c.rule == "hebbian"):
        capacity = "" if curve.flip else f": capacity {estimates[f'test/capacity_{curve.units}']:.3f}"
        plot(left, curve, colours[curve.units], f"N = {curve.units:,}, {start_name(curve)}{capacity}")
    left.axhline(LEVEL, color="0.5", linewidth=0.8, linestyle="-.", label=f"{LEVEL:.0%} recalled: the capacity")
    left.axvline(ALPHA_C, color="black", linewidth=1, linestyle=":", label=rf"$\alpha_c$ = {ALPHA_C}, $N \to \infty$")
    if math.isfinite(crossing := estimates.get("test/capacity_crossing", math.nan)):
        left.axvline(crossing, color="C3", linewidth=1, label=f"the sizes' curves cross at {crossing:.3f}")
    left.set_xlim(left=0)
    left.set_title("Hebbian rule: the transition sharpens as N grows")
    for axes in rest:
        for curve in curves:
            largest = curve.units == max(colours)
            if curve.rule == "pseudo_inverse" or largest:
                inverse = curve.rule == "pseudo_inverse"
                name = f"N = {curve.units:,}, {start_name(curve)}" if inverse else f"Hebbian, {start_name(curve)}"
                plot(axes, curve, colours[curve.units] if inverse else "0.6", name)
        axes.axvline(ALPHA_C, color="black", linewidth=1, linestyle=":")
        axes.set_title("Pseudo-inverse rule: patterns stay fixed up to N")
        axes.set_xlim(0, 1)
    for axes in (left, *rest):
        axes.set_xlabel(r"load $\alpha$ = patterns / N")
        axes.set_ylabel(f"recall rate (final overlap $\\geq$ {RECALLED})")
        axes.set_ylim(-0.03, 1.03)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="lower left" if axes is left else "center right")
    figure.savefig(path, dpi=130)


def start_name(curve: RecallCurve) -> str:
    return f"from {curve.flip:.0%} flipped" if curve.flip else "from the pattern"


def plot(axes: Any, curve: RecallCurve, colour: str, label: str) -> None:
    """Mean recall rate with its standard error over networks; dashed where recall starts from a corrupted pattern."""
    n = curve.rates.shape[1]
    error = (curve.rates.std(1) / math.sqrt(n)).tolist() if n > 1 else None
    axes.errorbar(
        curve.loads.tolist(), curve.rates.mean(1).tolist(), yerr=error, color=colour, label=label,
        linestyle="--" if curve.flip else "-", marker="o" if not curve.flip else "s", markersize=3.5, capsize=2,
        markerfacecolor="white" if curve.flip else colour,
    )  # fmt: skip
