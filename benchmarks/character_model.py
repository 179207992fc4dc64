"""A character GPT in nanoGPT's configuration for a CPU: training beside a bare loop, sampling beside transformers' GPT-2.

4 layers, 4 heads, 128 wide, blocks of 64 characters of tinyshakespeare, batches of 12, no dropout, no biases. The contenders
take turns in one process with the same number of threads. Training:

- ours: through the Trainer as `lit-gen run` sets it up (see benchmarks/turns.py), with the learning-rate schedule of
  configs/text/gpt_shakespeare.yaml;
- bare: the same model and loop as one writes them by hand with ``scaled_dot_product_attention``, ``F.cross_entropy``, fused
  AdamW and gradients clipped to norm 1; blocks at random places of a tensor in memory.

Sampling, untrained, 63 characters after a first one, which fills the block, 16 texts at once and one alone:

- ours: with the cache of keys and values, drawing from the whole distribution;
- transformers: ``GPT2LMHeadModel.generate`` of that size with its cache. ``pip install transformers``; left out where it is not
  installed.

    python benchmarks/character_model.py --root ../shared/data
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.packages import missing
from benchmarks.record import write_record
from benchmarks.report import compare
from benchmarks.turns import Round, Work, alternate, take_turns
from lit_gen.core.errors import UsageError
from lit_gen.core.text import BOS, PAD
from lit_gen.data import TinyShakespeare
from lit_gen.text import CausalTransformer, LanguageModel, WarmupCosine
from lit_gen.text.decoding import generate

LAYERS, HEADS, WIDTH, BLOCK, BATCH = 4, 4, 128, 64, 12
RATE, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.99), 0.1, 1.0
WHAT = f"character GPT, {LAYERS} layers, {HEADS} heads, {WIDTH} wide, blocks of {BLOCK}"
TRAINING, SAMPLING = {"bare": 0.9}, {"transformers": 1.5}
"""Least ratio of our speed to theirs."""

AdamW = partial(torch.optim.AdamW, lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True)


def ours() -> LanguageModel:
    features = partial(
        CausalTransformer, layers=LAYERS, heads=HEADS, feed_forward=4 * WIDTH, max_length=BLOCK, dropout=0.0, bias=False
    )
    return LanguageModel(
        features, WIDTH, tie_weights=True, output_bias=False, init_std=0.02, gradient_clip=CLIP, optimizer=AdamW,
        decay_matrices_only=True, scheduler=partial(WarmupCosine, warmup=100, steps=2000, min_lr=RATE / 10),
    )  # fmt: skip


def shakespeare(root: str) -> TinyShakespeare:
    return TinyShakespeare(root, mode="blocks", batch_size=BATCH, block_size=BLOCK)


# -------------------------------------------------------------------- training


class Layer(nn.Module):
    """Attention and feed-forward network, each after a layer normalisation and added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, _ = x.shape
        q, k, v = (
            each.view(rows, length, HEADS, WIDTH // HEADS).transpose(1, 2)
            for each in self.qkv(self.norm_1(x)).split(WIDTH, 2)
        )
        context = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(context.transpose(1, 2).reshape(rows, length, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class GPT(nn.Module):
    """Characters ``[B, T]`` -> logits ``[B, T, V]``."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(BLOCK, WIDTH)
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return F.linear(self.norm(self.layers(x)), self.tokens.weight)


def bare(data: TinyShakespeare, batches: int) -> Work:
    """The model trained as one writes it by hand."""
    model, text = GPT(data.spec.target.size), data.tokens("train")
    matrices, others = [[p for p in model.parameters() if (p.dim() > 1) == many] for many in (True, False)]
    optimizer = AdamW([{"params": matrices}, {"params": others, "weight_decay": 0.0}])
    offsets = torch.arange(BLOCK + 1)

    def epoch() -> None:
        for _ in range(batches):
            block = text[torch.randint(len(text) - BLOCK, (BATCH, 1)) + offsets]
            loss = F.cross_entropy(model(block[:, :-1]).flatten(0, 1), block[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()

    return epoch


def training(root: str, rounds: int, batches: int) -> list[Round]:
    """Characters per second of training, for each round."""
    pl.seed_everything(0, verbose=False)

    def make_others(_: LanguageModel, data: TinyShakespeare) -> dict[str, Work]:
        return {"bare": bare(data, batches)}

    return take_turns(ours(), shakespeare(root), make_others, rounds, batches)


# -------------------------------------------------------------------- sampling


def our_texts(model: LanguageModel, texts: int, repeats: int) -> int:
    """Characters drawn."""
    return sum(len(one.tokens) for _ in range(repeats) for one in generate(model, n=texts, length=BLOCK - 1))


def gpt2(vocabulary: int) -> Any:
    """An untrained GPT-2 of this size that knows no end of text."""
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    config = GPT2Config(
        vocab_size=vocabulary, n_positions=BLOCK, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, activation_function="gelu",
        bos_token_id=BOS, eos_token_id=None, pad_token_id=PAD, attn_implementation="sdpa",
    )  # fmt: skip
    logging.set_verbosity_error()  # a prompt of one token is taken for padding
    return GPT2LMHeadModel(config).eval()


def their_texts(model: Any, texts: int, repeats: int) -> int:
    """Characters drawn."""
    prompt = torch.full((texts, 1), BOS)
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": BLOCK - 1, "use_cache": True, "eos_token_id": None}
    mask = torch.ones_like(prompt)
    return sum(model.generate(prompt, attention_mask=mask, **options)[:, 1:].numel() for _ in range(repeats))


def sampling(root: str, rounds: int, texts: int, repeats: int, left_out: dict[str, str]) -> list[Round]:
    """Characters per second of sampling, for each round."""
    pl.seed_everything(0, verbose=False)
    spec = shakespeare(root).spec
    contenders: dict[str, Work] = {"ours": partial(our_texts, ours().build(spec), texts, repeats)}
    if "transformers" not in left_out:
        contenders["transformers"] = partial(their_texts, gpt2(spec.target.size), texts, repeats)
    return alternate(contenders, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds that are counted (default 9)")
    parser.add_argument("--batches", type=int, default=100, help="updates of each in a round of training (default 100)")
    parser.add_argument("--repeats", type=int, default=10, help="calls of each in a round of sampling (default 10)")
    parser.add_argument("--threads", type=int, default=None, help="threads of every contender (default: all cores)")
    parser.add_argument("--root", default="data", help="folder of the data (default data)")
    parser.add_argument("--record", action="store_true", help="write results/benchmarks/character_model.json")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    left_out = missing({"transformers": "transformers"})
    print(f"{WHAT}, {torch.get_num_threads()} thread(s)")
    rows, results = [], {}
    try:
        results["training"] = training(options.root, options.rounds, options.batches)
        what = f"training: {WHAT}, batch {BATCH}"
        rows += compare(
            what, results["training"], "tokens/s", TRAINING, "ours (training)", {"bare": "bare PyTorch loop"}
        )
        for texts in (16, 1):
            how = f"sampling, {texts} at once"
            results[how] = sampling(options.root, options.rounds, texts, options.repeats, left_out)
            names = {"transformers": "transformers' GPT2LMHeadModel.generate"}
            rows += compare(f"{how}: {WHAT}", results[how], "tokens/s", SAMPLING, f"ours ({how})", names)
    except UsageError as error:
        sys.exit(f"error: {error}")
    for reason in left_out.values():
        print(reason)
    if options.record:
        write_record("character_model", rows, results)


if __name__ == "__main__":
    main()
