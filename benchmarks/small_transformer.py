"""The Transformer that is trained and decodes in the benchmarks: 3 + 3 layers, 256 wide, on Multi30k with a joint BPE."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.text import PAD
from lit_gen.data import Multi30k
from lit_gen.text import InverseSquareRoot, Seq2Seq, TransformerDecoder, TransformerEncoder
from lit_gen.text.positions import sinusoids

LAYERS, WIDTH, FEED_FORWARD, HEADS, DROPOUT, SMOOTHING = 3, 256, 1024, 8, 0.1, 0.1
VOCABULARY, BATCH_TOKENS = 8000, 2048
BETAS, RATE, WARMUP = (0.9, 0.98), 1e-3, 1000
WHAT = f"Transformer {LAYERS}+{LAYERS} layers, d = {WIDTH}, ff = {FEED_FORWARD}, {HEADS} heads, Multi30k en-de, BPE 8k"


def adam(parameters) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=RATE, betas=BETAS, fused=True)


def multi30k(root: str) -> Multi30k:
    return Multi30k(root, files="tok", source="en", target="de", vocab_size=VOCABULARY, joint=True,
                    batch_tokens=BATCH_TOKENS)  # fmt: skip


def ours() -> Seq2Seq:
    """Ours, of this size; one table of vectors for source, target and output."""
    size = {"layers": LAYERS, "heads": HEADS, "feed_forward": FEED_FORWARD, "dropout": DROPOUT}
    return Seq2Seq(
        encoder=partial(TransformerEncoder, **size), decoder=partial(TransformerDecoder, **size), embedding_dim=WIDTH,
        share_embeddings=True, tie_weights=True, output_bias=False, optimizer=adam,
        scheduler=partial(InverseSquareRoot, warmup=WARMUP), label_smoothing=SMOOTHING,
    )  # fmt: skip


class TorchTransformer(nn.Module):
    """``torch.nn.Transformer`` with vectors and positions as its users write them; returns logits ``[B, T, V]``."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, WIDTH, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=WIDTH**-0.5)
        self.transformer = nn.Transformer(WIDTH, HEADS, LAYERS, LAYERS, FEED_FORWARD, DROPOUT, batch_first=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.register_buffer("positions", sinusoids(512, WIDTH))

    def embed(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.embedding(tokens) * WIDTH**0.5 + self.positions[: tokens.shape[1]])

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        padding = source == PAD
        future = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu_(1)
        features = self.transformer(
            self.embed(source), self.embed(target), tgt_mask=future, tgt_is_causal=True, src_key_padding_mask=padding,
            memory_key_padding_mask=padding, tgt_key_padding_mask=target == PAD,
        )  # fmt: skip
        return F.linear(features, self.embedding.weight)
