"""Tokens per second of training and of scoring an n-gram model of characters, beside NLTK's ``nltk.lm`` on the same tokens.

Two smoothings: additive (NLTK's ``Lidstone``) and interpolated Kneser-Ney with one discount (``KneserNeyInterpolated``). Both
are trained on a slice of tinyshakespeare that is short enough for NLTK, which looks through all histories for each token that
it scores under Kneser-Ney. Contenders take turns, round by round, on one thread.

- training: from the tokens to a model that is ready to score. NLTK is given the n-grams of all orders as tuples of strings;
  making them is not timed.
- scoring: the probability of each token of the validation split after the N - 1 before it; NLTK's rate is that of its first
  tokens. Our nats and NLTK's are compared on those under additive smoothing, where the models are the same.

Last, our own rates when trained on the whole training split, where NLTK would take hours.

    python benchmarks/ngram.py --root ../shared/data [--order 5] [--record]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.record import write_record
from lit_gen.core.errors import UsageError
from lit_gen.core.text import BOS, EOS, UNK, TextSpec
from lit_gen.data import TinyShakespeare
from lit_gen.text import Additive, KneserNey, NGram

DELTA, DISCOUNT = 0.01, 0.1
SCORED = {"additive": 2000, "Kneser-Ney": 100}
"""Tokens that NLTK scores in a round."""
OURS = {"additive": Additive(DELTA), "Kneser-Ney": KneserNey(DISCOUNT)}


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and its result."""
    begin = time.perf_counter()
    result = action()
    return time.perf_counter() - begin, result


def ours(smoothing: Any, order: int, spec: TextSpec, train: Tensor, val: Tensor) -> tuple[float, float, Tensor]:
    """Tokens per second of training, of scoring, and the nats of the validation tokens."""
    model = NGram(order, smoothing).build(spec)

    def fit() -> None:
        model.fit_tokens(train)
        _ = model.table

    fitting, _ = timed(fit)
    read = torch.cat((torch.tensor([BOS]), val[:-1]))
    scoring, nats = timed(lambda: model.nats(read[None], val[None])[0])
    return len(train) / fitting, len(val) / scoring, nats


def nltk(name: str, order: int, spec: TextSpec, train: Tensor, val: Tensor) -> tuple[float, float, Tensor]:
    """The same of NLTK; it scores the first tokens alone."""
    from nltk.lm import KneserNeyInterpolated, Lidstone

    model = Lidstone(DELTA, order) if name == "additive" else KneserNeyInterpolated(order, DISCOUNT)
    words = [str(BOS)] * (order - 1) + [str(token) for token in train.tolist()]
    ends = range(order, len(words) + 1)
    ngrams = [[tuple(words[end - k : end]) for k in range(1, order + 1)] for end in ends]
    # all that we predict; NLTK adds its own unknown word
    vocabulary = [str(token) for token in range(EOS, spec.target.size) if token != UNK]
    fitting, _ = timed(lambda: model.fit(ngrams, vocabulary_text=vocabulary))
    words = [str(BOS)] * (order - 1) + [str(token) for token in val[: SCORED[name]].tolist()]
    windows = [(words[end - 1], words[end - order : end - 1]) for end in range(order, len(words) + 1)]
    scoring, scores = timed(lambda: [model.score(word, history) for word, history in windows])
    return len(train) / fitting, len(windows) / scoring, -torch.tensor(scores, dtype=torch.float64).log()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="n-gram training and scoring beside NLTK's")
    parser.add_argument("--order", type=int, default=5, help="N (default 5)")
    parser.add_argument("--tokens", type=int, default=20_000, help="training tokens of the comparison (default 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that are counted (default 3)")
    parser.add_argument("--root", default="data", help="folder that has tinyshakespeare/input.txt (default data)")
    parser.add_argument("--record", action="store_true", help="write results/benchmarks/ngram.json")
    return parser.parse_args()


def report(rounds: list[dict[str, tuple[float, float]]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Prints the table; returns the rows of the record."""
    rows = []
    print(f"{'':24}{'ours, tokens/s':>16}{'NLTK, tokens/s':>16}{'ours / NLTK':>13}")
    for index, what in enumerate(("training", "scoring")):
        for name in OURS:
            mine, theirs = (statistics.median(r[f"{who} {name}"][index] for r in rounds) for who in ("ours", "NLTK"))
            ratio = statistics.median(r[f"ours {name}"][index] / r[f"NLTK {name}"][index] for r in rounds)
            print(f"{what + ', ' + name:24}{mine:16,.0f}{theirs:16,.0f}{ratio:13,.0f}")
            rows.append({
                "what": f"{what}: {options.order}-gram, {name}, {options.tokens:,} training tokens",
                "ours": f"{mine:,.0f} tokens/s", "theirs": f"NLTK {theirs:,.0f} tokens/s", "ratio": ratio,
                "note": f"median of {len(rounds)} interleaved rounds",
            })  # fmt: skip
    return rows


def main() -> None:
    options = parse()
    if importlib.util.find_spec("nltk") is None:
        sys.exit("error: NLTK is not installed: pip install nltk")
    torch.set_num_threads(1)
    try:
        data = TinyShakespeare(root=options.root, download=False)
        spec, train, val = data.spec, data.tokens("train"), data.tokens("val")
    except UsageError as error:
        sys.exit(f"error: {error}")
    part, rounds, differences = train[: options.tokens], [], []
    ours(KneserNey(), options.order, spec, part, val)  # warms up
    for _ in range(options.rounds):
        measured = {}
        for name, smoothing in OURS.items():
            *measured[f"ours {name}"], nats = ours(smoothing, options.order, spec, part, val)
            *measured[f"NLTK {name}"], expected = nltk(name, options.order, spec, part, val)
            if name == "additive":
                differences.append(float((nats[: len(expected)] - expected).abs().max()))
        rounds.append(measured)
    print(f"{options.order}-grams of characters, {len(part):,} training tokens of tinyshakespeare, 1 thread, median of "
          f"{options.rounds} rounds")  # fmt: skip
    rows = report(rounds, options)
    print(f"additive smoothing: nats of a token differ by {max(differences):.1e} at most")
    whole = [ours(KneserNey(), options.order, spec, train, val) for _ in range(options.rounds)]
    fit, score = (statistics.median(each[index] for each in whole) for index in (0, 1))
    print(
        f"the whole training split, {len(train):,} tokens, modified Kneser-Ney: {float(whole[0][2].mean()):.4f} nats a token,"
    )
    print(f"training {fit:,.0f} tokens/s ({len(train) / fit:.2f} s), scoring {score:,.0f} tokens/s")
    if options.record:
        write_record("ngram", rows, {"rounds": rounds, "whole_split": [each[:2] for each in whole]})


if __name__ == "__main__":
    main()
