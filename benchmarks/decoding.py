"""Sentences per second of decoding with a small Transformer, greedily and with a beam of 5: ours, transformers, JoeyNMT.

200 English sentences of Multi30k's test split in batches of 50, in the order of the file. The models are of one size (3 + 3
layers, 256 wide, 1,024 in the feed-forward networks, 8 heads, 8,000 tokens) and untrained; eos is never said, so that all
contenders write exactly 60 tokens for every sentence. They take turns in one process with the same number of threads.

- ours: with the cache of keys and values;
- ours without cache: reads all tokens again for each new one;
- transformers: ``MarianMTModel.generate`` with its cache. ``pip install transformers``;
- joeynmt: its own search (see benchmarks/joey.py).

The last two are left out where not installed. JoeyNMT and ours without cache decode the first batch alone, being slow.

    python benchmarks/decoding.py --root ../shared/data
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import joey
from benchmarks.packages import missing
from benchmarks.record import write_record
from benchmarks.report import compare
from benchmarks.small_transformer import FEED_FORWARD, HEADS, LAYERS, WHAT, WIDTH, multi30k, ours
from benchmarks.turns import Round, Work, alternate
from lit_gen.core.errors import UsageError
from lit_gen.core.text import BOS, PAD
from lit_gen.data import Multi30k
from lit_gen.text import Seq2Seq
from lit_gen.text.cache import TensorCache
from lit_gen.text.decoding import Decoding
from lit_gen.text.decoding.decode import padded

SENTENCES, BATCH, LENGTH = 200, 50, 60
TARGETS = {1: {"transformers": 1.3}, 5: {"transformers": 1.6}}
"""Least ratio of our speed to theirs, for each beam."""


class Uncached:
    """Our model without its cache: what it remembers of a sequence are the tokens."""

    max_context = None

    def __init__(self, model: Seq2Seq) -> None:
        self.model, self.read, self.evaluating = model, model.read, model.evaluating

    def advance(self, tokens: Tensor, memory: Any, cache: TensorCache | None) -> tuple[Tensor, TensorCache]:
        seen = tokens if cache is None else torch.cat([cache[0], tokens], 1)
        features, _ = self.model.features(seen, memory)
        return self.model.output(features[:, -1:]), TensorCache(seen)


def our_search(model: Seq2Seq | Uncached, source: Tensor, beam: int) -> int:
    """Tokens in the translations of a batch."""
    found = Decoding(beam=beam, min_length=LENGTH, max_length=LENGTH, max_extra=LENGTH)(model, source)
    return sum(hypotheses[0].length for hypotheses in found)


def marian(vocabulary: int) -> Any:
    """An untrained MarianMTModel of this size, with one table of vectors, that knows no eos."""
    from transformers import MarianConfig, MarianMTModel

    size = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in
            (("layers", LAYERS), ("attention_heads", HEADS), ("ffn_dim", FEED_FORWARD))}  # fmt: skip
    config = MarianConfig(
        vocab_size=vocabulary, d_model=WIDTH, **size, activation_function="relu", scale_embedding=True,
        max_position_embeddings=512, pad_token_id=PAD, bos_token_id=BOS, decoder_start_token_id=BOS, eos_token_id=None,
        forced_eos_token_id=None, attn_implementation="sdpa",
    )  # fmt: skip
    return MarianMTModel(config).eval()


def marian_search(model: Any, source: Tensor, beam: int) -> int:
    """Tokens in the translations of a batch."""
    found = model.generate(
        input_ids=source, attention_mask=(source != PAD).long(), num_beams=beam, max_new_tokens=LENGTH, do_sample=False,
        use_cache=True, eos_token_id=None, forced_eos_token_id=None,
    )  # fmt: skip
    return found[:, 1:].numel()


def joey_search(model: joey.Joey, source: Tensor, beam: int) -> int:
    """Tokens in the translations of a batch."""
    return model.search(source, beam, LENGTH).numel()


def decode(search: Any, batches: list[Tensor]) -> int:
    """Decodes all batches; returns the number of sentences.

    Raises:
        RuntimeError: a contender wrote fewer or more tokens than agreed.
    """
    for source in batches:
        tokens = search(source)
        if tokens != len(source) * LENGTH:
            raise RuntimeError(f"{search}: {tokens} tokens instead of {len(source) * LENGTH}")
    return sum(map(len, batches))


def contenders(data: Multi30k, folder: Path, left_out: dict[str, str], beam: int) -> dict[str, Work]:
    """What each has to do in a round."""
    lines = data.split("test").source
    ends = (lines.start + lines.length + 1)[:SENTENCES].tolist()
    sentences = [lines.tokens[a + 1 : b].tolist() for a, b in zip(lines.start.tolist(), ends)]
    batches = [padded(sentences[start : start + BATCH]) for start in range(0, SENTENCES, BATCH)]
    model = ours().build(data.spec)
    made = {
        "ours": partial(decode, partial(our_search, model, beam=beam), batches),
        "ours without cache": partial(decode, partial(our_search, Uncached(model), beam=beam), batches[:1]),
    }
    if "transformers" not in left_out:
        theirs = marian(data.spec.target.size)
        made["transformers"] = partial(decode, partial(marian_search, theirs, beam=beam), batches)
    if "joeynmt" not in left_out:
        theirs = joey.Joey(data, folder)
        made["joeynmt"] = partial(decode, partial(joey_search, theirs, beam=beam), batches[:1])
    return made


def measure(root: str, rounds: int, left_out: dict[str, str], beam: int) -> list[Round]:
    """Sentences per second of all, for each round."""
    pl.seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        return alternate(contenders(multi30k(root), Path(folder), left_out, beam), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that are counted (default 5)")
    parser.add_argument("--threads", type=int, default=None, help="threads of every contender (default: all cores)")
    parser.add_argument("--root", default="data", help="folder of the data (default data)")
    parser.add_argument("--record", action="store_true", help="write results/benchmarks/decoding.json")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    left_out = missing({"transformers": "transformers", "joeynmt": "joeynmt.training"})
    print(f"{WHAT}, untrained: {SENTENCES} sentences of {LENGTH} tokens in batches of {BATCH}, "
          f"{torch.get_num_threads()} thread(s)")  # fmt: skip
    rows, results = [], {}
    names = {"transformers": "transformers' MarianMTModel.generate", "joeynmt": "JoeyNMT's search"}
    for beam, targets in TARGETS.items():
        how = "greedy" if beam == 1 else f"beam {beam}"
        try:
            results[how] = measure(options.root, options.rounds, left_out, beam)
        except UsageError as error:
            sys.exit(f"error: {error}")
        what = f"decoding, {how}: {SENTENCES} sentences of {LENGTH} tokens, batch {BATCH}, {WHAT}"
        rows += compare(what, results[how], "sentences/s", targets, ours=f"ours ({how})", names=names)
    for reason in left_out.values():
        print(reason)
    if options.record:
        write_record("decoding", rows, results)


if __name__ == "__main__":
    main()
