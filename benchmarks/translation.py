"""Target tokens per second of training a Transformer on Multi30k: ours, a bare loop over torch.nn.Transformer, and JoeyNMT.

3 + 3 layers, 256 wide, 1,024 in the feed-forward networks, 8 heads, dropout 0.1, a joint BPE of 8,000, batches of 2,048
tokens, one table of vectors for source, target and output, label smoothing 0.1, Adam. The contenders take turns, some batches
each, in one process with the same number of threads, so that a slow minute of the machine meets them all.

- ours: through the Trainer as `lit-gen run` sets it up (see benchmarks/turns.py);
- bare: ``torch.nn.Transformer`` with padding masks, ``F.cross_entropy`` over the padded batch, fused Adam. It is fed the same
  batches of like length as ours in the same rounds, by our loader;
- joeynmt: its own trainer with batches of its own from the same sentences (see benchmarks/joey.py). Left out where it is not
  installed.

    python benchmarks/translation.py --root ../shared/data
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import joey
from benchmarks.packages import missing
from benchmarks.record import write_record
from benchmarks.report import compare
from benchmarks.small_transformer import BATCH_TOKENS, SMOOTHING, WHAT, TorchTransformer, adam, multi30k, ours
from benchmarks.turns import Round, Work, take_turns
from lit_gen.core.errors import UsageError
from lit_gen.core.text import PAD
from lit_gen.data import Multi30k
from lit_gen.data.loader import TrainLoader
from lit_gen.text import Seq2Seq

TARGETS = {"bare": 0.95, "joeynmt": 2.0}
"""Least ratio of our speed to theirs."""


def bare(data: Multi30k, batches: int) -> Work:
    """The Transformer trained as one writes it by hand, on the batches of our Trainer's epochs."""
    model = TorchTransformer(data.spec.target.size)
    optimizer = adam(model.parameters())
    pairs = data.split("train")
    loader = TrainLoader(pairs, data.train_plan(pairs, 1, 0, reshuffle=True), None, stop=batches)

    def epoch() -> None:
        for batch in loader:
            logits, truth = model(batch.source, batch.target[:, :-1]), batch.target[:, 1:]
            loss = F.cross_entropy(logits.flatten(0, 1), truth.flatten(), ignore_index=PAD, label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def measure(root: str, rounds: int, batches: int, with_joey: bool) -> list[Round]:
    """Target tokens per second of all, for each round."""
    pl.seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as folder:

        def make_others(_: Seq2Seq, data: Multi30k) -> dict[str, Work]:
            others = {"bare": bare(data, batches)}
            return others | {"joeynmt": joey.Joey(data, Path(folder)).train(batches)} if with_joey else others

        return take_turns(ours(), multi30k(root), make_others, rounds, batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds that are counted (default 7)")
    parser.add_argument("--batches", type=int, default=8, help="updates of each in a round (default 8)")
    parser.add_argument("--threads", type=int, default=None, help="threads of every contender (default: all cores)")
    parser.add_argument("--root", default="data", help="folder of the data (default data)")
    parser.add_argument("--record", action="store_true", help="write results/benchmarks/translation.json")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    left_out = missing({"joeynmt": "joeynmt.training"})
    try:
        results = measure(options.root, options.rounds, options.batches, not left_out)
    except UsageError as error:
        sys.exit(f"error: {error}")
    print(f"{WHAT}: training in batches of {BATCH_TOKENS:,} tokens, {torch.get_num_threads()} thread(s)")
    names = {"bare": "bare loop over torch.nn.Transformer, same batches", "joeynmt": "JoeyNMT's trainer"}
    rows = compare(f"training: {WHAT}", results, "target tokens/s", TARGETS, names=names)
    for reason in left_out.values():
        print(reason)
    if options.record:
        write_record("translation", rows, results)


if __name__ == "__main__":
    main()
