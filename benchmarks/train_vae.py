"""Images per second of the Burda VAE: the Lightning Trainer as `lit-gen run` uses it, beside a bare PyTorch loop.

One process, one model size (784-200-200-50), batch 128, dynamic binarisation and fused Adam in both, the same initial weights.
The two take turns, one epoch each: the bare loop runs between two epochs of the Trainer, so that a slow minute of the machine
meets both. The Trainer logs (CSV), writes a checkpoint each epoch and checks every gradient; its round lasts from the start of
one epoch to the start of the next, so all of that is inside. The first round warms up and is not counted.

    python benchmarks/train_vae.py [--rounds 10] [--root data] [--threads 2] [--json]
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BATCH = 128


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-3, eps=1e-4, fused=True)


class BareLoop:
    """The same VAE as one writes it by hand: no framework, images as floats in memory."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, images: Tensor) -> None:
        self.encoder, self.decoder, self.images = encoder, decoder, images
        self.optimizer = adam([*encoder.parameters(), *decoder.parameters()])

    def epoch(self) -> None:
        for index in torch.randperm(len(self.images)).split(BATCH):
            grey = self.images[index]
            x = (torch.rand_like(grey) < grey).float()
            mean, log_variance = self.encoder(x).chunk(2, -1)
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            reconstruction = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
            kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
            loss = (reconstruction + kl) / len(x)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def measure(rounds: int, root: str) -> list[dict[str, float]]:
    """Images per second of both and their ratio, for each round."""
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers import CSVLogger

    from lit_gen.data import MNIST
    from lit_gen.vae import VAE

    class TakeTurns(pl.Callback):
        """Runs an epoch of the bare loop before each epoch of the Trainer, and times both."""

        def __init__(self) -> None:
            self.results: list[dict[str, float]] = []

        def on_fit_start(self, trainer: pl.Trainer, module: VAE) -> None:
            encoder, decoder = (copy.deepcopy(module.networks[name].layers) for name in ("encoder", "decoder"))
            images = (
                torch.cat([image for image, _ in trainer.datamodule.clean_batches("train")]).flatten(1).float() / 255
            )
            self.bare, self.started = BareLoop(encoder, decoder, images), None

        def on_train_epoch_start(self, trainer: pl.Trainer, module: VAE) -> None:
            self.finish_round()
            begin = time.perf_counter()
            # The bare loop is free to use the global generator; the Trainer's batches are keyed and do not notice.
            self.bare.epoch()
            self.bare_seconds = time.perf_counter() - begin
            self.started = time.perf_counter()

        def on_fit_end(self, trainer: pl.Trainer, module: VAE) -> None:
            self.finish_round()

        def finish_round(self) -> None:
            if self.started is not None:
                seconds, n = time.perf_counter() - self.started, len(self.bare.images)
                self.results.append(
                    {"bare": n / self.bare_seconds, "ours": n / seconds, "ratio": self.bare_seconds / seconds}
                )

    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    pl.seed_everything(0, verbose=False)
    turns = TakeTurns()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=rounds + 1,
            accelerator="cpu",
            logger=CSVLogger(folder),
            callbacks=[turns, ModelCheckpoint(folder, save_last=True)],
            log_every_n_steps=50,
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = MNIST(root=root, binarize="dynamic", batch_size=BATCH, val_size=0, download=False)
        trainer.fit(VAE(optimizer=adam), data)
    return turns.results[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="epochs of each that are counted")
    parser.add_argument("--root", default="data", help="folder of MNIST in torchvision's layout")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = measure(options.rounds, options.root)
    median = {name: statistics.median(result[name] for result in results) for name in ("bare", "ours", "ratio")}
    if options.json:
        print(json.dumps({"benchmark": "train_vae", "threads": options.threads, "median": median, "rounds": results}))
        return
    print(f"{'round':>6}{'bare images/s':>16}{'ours images/s':>16}{'ratio':>8}")
    for i, result in enumerate(results, 1):
        print(f"{i:>6}{result['bare']:>16,.0f}{result['ours']:>16,.0f}{result['ratio']:>8.3f}")
    print(f"median{median['bare']:>16,.0f}{median['ours']:>16,.0f}{median['ratio']:>8.3f}   (target: 0.88 or more)")


if __name__ == "__main__":
    main()
