"""Images per second of training a 784-500 RBM on MNIST in batches of 100: ours, a bare PyTorch loop and two packages.

The contenders take turns, one epoch each, in one process with the same number of threads, so that a slow minute of the machine
meets them all. Learning rate 0.05 everywhere, and

- ours: CD-1 through the Trainer as `lit-gen run` sets it up (see benchmarks/turns.py); binarised anew for every batch; momentum
  0.5, weight decay 0.0002 on the weights;
- bare: CD-1 as one writes it by hand; binarised anew for every batch; same optimizer;
- scikit-learn: ``BernoulliRBM``, persistent chains with one step an update, no momentum; images binarised before the clock
  starts;
- learnergy: ``learnergy.models.bernoulli.RBM``, CD-1, momentum 0.5, its own DataLoader; images binarised before the clock
  starts. It needs Python 3.11 and is left out where it is not installed: ``pip install learnergy``, or, to leave the
  environment as it is, ``pip install --target FOLDER learnergy`` and ``PYTHONPATH=FOLDER``.

Then what an epoch of our CD-25 takes beside one of our CD-1, each measured against the bare loop, and the time of annealed
importance sampling with 100 chains.

    python benchmarks/rbm.py --root ../shared/data
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
import time
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.record import write_record
from benchmarks.report import compare, median
from benchmarks.turns import Round, Work, take_turns, training_images
from lit_gen.core.errors import UsageError
from lit_gen.data import MNIST
from lit_gen.energy.likelihood import ais
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.negative_phase import ContrastiveDivergence
from lit_gen.energy.path import TemperedPath
from lit_gen.energy.rbm import RBM
from lit_gen.energy.units import Bernoulli

HIDDEN, BATCH, RATE, MOMENTUM, DECAY = 500, 100, 0.05, 0.5, 0.0002
TARGETS = {"bare": 0.9, "scikit-learn": 1.0, "learnergy": 1.0}
"""Least ratio of our speed to theirs."""
COST_OF_25 = 14.0
AIS_STEPS, AIS_CHAINS = 14_500, 100
SGD = partial(torch.optim.SGD, lr=RATE, momentum=MOMENTUM)


def bare(images: Tensor) -> Work:
    """CD-1 as one writes it by hand: the images as floats in memory."""
    grey = images.flatten(1).float() / 255
    weight = (0.01 * torch.randn(784, HIDDEN)).requires_grad_()
    a, b = torch.zeros(784, requires_grad=True), torch.zeros(HIDDEN, requires_grad=True)
    optimizer = SGD([{"params": [weight], "weight_decay": DECAY}, {"params": [a, b]}])

    def free_energy(v: Tensor) -> Tensor:
        return -(v @ a) - F.softplus(v @ weight + b).sum(1)

    def epoch() -> None:
        for index in torch.randperm(len(grey)).split(BATCH):
            v = torch.bernoulli(grey[index])
            with torch.no_grad():
                h = torch.bernoulli(torch.sigmoid(v @ weight + b))
                v_model = torch.bernoulli(torch.sigmoid(h @ weight.T + a))
            loss = free_energy(v).mean() - free_energy(v_model).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def scikit_learn(images: Tensor) -> Work:
    """scikit-learn's RBM; every epoch is a fit of its own."""
    from sklearn.neural_network import BernoulliRBM

    binary = torch.bernoulli(images.flatten(1).float() / 255).numpy()
    model = BernoulliRBM(HIDDEN, learning_rate=RATE, batch_size=BATCH, n_iter=1, random_state=0)

    def epoch() -> None:
        model.fit(binary)

    return epoch


def learnergy(images: Tensor) -> Work:
    """learnergy's RBM by its own ``fit``."""
    from learnergy.models.bernoulli import RBM as Theirs

    logging.disable(logging.INFO)  # it reports every epoch
    binary = torch.bernoulli(images.flatten(1).float() / 255)
    data = torch.utils.data.TensorDataset(binary, torch.zeros(len(binary)))
    model = Theirs(784, HIDDEN, steps=1, learning_rate=RATE, momentum=MOMENTUM, decay=DECAY)

    def epoch() -> None:
        model.fit(data, batch_size=BATCH, epochs=1)

    return epoch


OTHERS = {"bare": bare, "scikit-learn": scikit_learn, "learnergy": learnergy}


def ours(k: int) -> RBM:
    return RBM(HIDDEN, negative_phase=ContrastiveDivergence(k), optimizer=SGD, weight_decay=DECAY)


def measure(k: int, others: list[str], rounds: int, options: argparse.Namespace) -> list[Round]:
    """Images per second of our CD-k and of the others, for each round."""
    data = MNIST(options.root, binarize="dynamic", batch_size=BATCH, val_size=0, subset_size=options.images)
    pl.seed_everything(0, verbose=False)

    def make_others(_: RBM, data: MNIST) -> dict[str, Work]:
        images = training_images(data)
        return {name: OTHERS[name](images) for name in others}

    return take_turns(ours(k), data, make_others, rounds)


def annealing(steps: int) -> float:
    """Seconds that AIS takes for each inverse temperature."""
    machine = BipartiteMachine(Bernoulli(784), Bernoulli(HIDDEN), weight_std=0.1)
    path, betas = TemperedPath(machine, torch.full((784,), 0.2)), torch.linspace(0, 1, steps + 1)
    ais(path, torch.linspace(0, 1, 21), AIS_CHAINS)  # warms up
    begin = time.perf_counter()
    ais(path, betas, AIS_CHAINS)
    return (time.perf_counter() - begin) / steps


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="epochs of each that are counted (default 9)")
    parser.add_argument("--images", type=int, default=12_000, help="training images in an epoch (default 12000)")
    parser.add_argument("--threads", type=int, default=None, help="threads of every contender (default: all cores)")
    parser.add_argument("--ais-steps", type=int, default=AIS_STEPS // 10,
                        help="inverse temperatures that are timed (default 1450, a tenth of the authors')")  # fmt: skip
    parser.add_argument("--root", default="data", help="folder of MNIST in torchvision's layout (default data)")
    parser.add_argument("--record", action="store_true", help="write results/benchmarks/rbm.json")
    return parser.parse_args()


def report(one: list[Round], many: list[Round], seconds: float, options: argparse.Namespace) -> list[dict]:
    """Prints the table; returns the rows of the record."""
    what = f"training: RBM 784-{HIDDEN}, batch {BATCH}"
    rows = compare(what, one, "images/s", TARGETS, ours="ours (CD-1)", names={"bare": "bare PyTorch loop"})
    mine = median(one, lambda r: r["ours"])
    if "learnergy" not in one[0]:
        print("learnergy: not installed (pip install learnergy)")
    # each against the bare loop that ran beside it
    cost = median(one, lambda r: r["ours"] / r["bare"]) / median(many, lambda r: r["ours"] / r["bare"])
    slow = median(many, lambda r: r["ours"])
    print(
        f"\nours (CD-25): {slow:,.0f} images/s; an epoch takes {cost:.2f} times that of CD-1 (target: at most {COST_OF_25})"
    )
    print(f"AIS, {AIS_CHAINS} chains: {seconds * 1e3:.2f} ms for each inverse temperature, {seconds * AIS_STEPS:,.0f} s for "
          f"{AIS_STEPS:,} (from {options.ais_steps:,})")  # fmt: skip
    rows.append({
        "what": f"training: RBM 784-{HIDDEN}, CD-25 beside CD-1", "ours": f"CD-25 {slow:,.0f} images/s",
        "theirs": f"ours, CD-1 {mine:,.0f} images/s", "ratio": 1 / cost,
        "note": f"CD-25 takes {cost:.1f} times as long (target: at most {COST_OF_25:.0f}); AIS with {AIS_CHAINS} chains: "
                f"{seconds * AIS_STEPS:,.0f} s for {AIS_STEPS:,} temperatures",
    })  # fmt: skip
    return rows


def main() -> None:
    options = parse()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    others = [name for name in OTHERS if name != "learnergy" or importlib.util.find_spec("learnergy")]
    try:
        # scikit-learn's threads are those of NumPy's linear algebra
        with threadpool_limits(torch.get_num_threads()):
            one = measure(1, others, options.rounds, options)
            many = measure(25, ["bare"], max(2, options.rounds // 2), options)
            seconds = annealing(options.ais_steps)
    except UsageError as error:
        sys.exit(f"error: {error}")
    print(f"RBM 784-{HIDDEN} on {options.images:,} images of MNIST, batch {BATCH}, {torch.get_num_threads()} thread(s), "
          f"median of {options.rounds} rounds")  # fmt: skip
    rows = report(one, many, seconds, options)
    if options.record:
        write_record("rbm", rows, {"cd1": one, "cd25": many, "ais_seconds_per_temperature": seconds})


if __name__ == "__main__":
    main()
