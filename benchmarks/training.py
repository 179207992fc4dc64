"""Images per second of training through the Trainer, as `lit-gen run` sets it up, beside a bare PyTorch loop.

Two cases: `dcgan` (32x32x1, ngf = ndf = 64, batch 64) and `vae` (Burda's 784-200-200-50, batch 128, dynamic binarisation).
Both contenders have the same networks with the same initial weights, the same optimizers and the same images in memory.
They take turns, one epoch each, in one process: the bare loop runs between two epochs of the Trainer, so that a slow minute
of the machine meets both. The Trainer logs to metrics.csv, writes checkpoints and checks every gradient; its round lasts from
the start of one epoch to the start of the next, so all of that is inside. The first round warms up and is not counted.

    python benchmarks/training.py vae --root ../shared/data
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.record import write_record
from benchmarks.turns import Work, take_turns, training_images
from lit_gen.core.errors import UsageError
from lit_gen.core.module import GenerativeModule
from lit_gen.data import MNIST
from lit_gen.gan import GAN, DCGANDiscriminator, DCGANGenerator
from lit_gen.vae import VAE


def vae_adam(parameters) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=1e-3, eps=1e-4, fused=True)


def gan_adam(parameters) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=2e-4, betas=(0.5, 0.999), fused=True)


def bare_vae(model: VAE, images: Tensor) -> Work:
    """The VAE as one writes it by hand: images as floats in memory."""
    encoder, decoder = (copy.deepcopy(model.networks[name].layers) for name in ("encoder", "decoder"))
    optimizer = vae_adam([*encoder.parameters(), *decoder.parameters()])
    grey = images.flatten(1).float() / 255

    def epoch() -> None:
        for index in torch.randperm(len(grey)).split(128):
            pixels = grey[index]
            x = (torch.rand_like(pixels) < pixels).float()
            mean, log_variance = encoder(x).chunk(2, -1)
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            reconstruction = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
            kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
            loss = (reconstruction + kl) / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def bare_dcgan(model: GAN, images: Tensor) -> Work:
    """The DCGAN as one writes it by hand: non-saturating losses, fresh noise for each network."""
    generator, discriminator = copy.deepcopy(model.generator), copy.deepcopy(model.discriminator)
    optimizer_g, optimizer_d = gan_adam(generator.parameters()), gan_adam(discriminator.parameters())
    real = images.float() / 127.5 - 1

    def bce(logits: Tensor, target: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    def epoch() -> None:
        for index in torch.randperm(len(real)).split(64):
            x = real[index]
            with torch.no_grad():
                fake = generator(torch.randn(len(x), 100))
            loss_d = bce(discriminator(x), 1.0) + bce(discriminator(fake), 0.0)
            optimizer_d.zero_grad()
            loss_d.backward()
            optimizer_d.step()

            discriminator.requires_grad_(False)
            loss_g = bce(discriminator(generator(torch.randn(len(x), 100))), 1.0)
            optimizer_g.zero_grad()
            loss_g.backward()
            optimizer_g.step()
            discriminator.requires_grad_(True)

    return epoch


def make_vae(root: str) -> tuple[GenerativeModule, MNIST]:
    data = MNIST(root, binarize="dynamic", batch_size=128, val_size=0)
    return VAE(optimizer=vae_adam), data


def make_dcgan(root: str) -> tuple[GenerativeModule, MNIST]:
    # 40 batches a round: long enough to time, short enough to take turns often
    data = MNIST(root, image_size=32, value_range="symmetric", batch_size=64, subset_size=2560)
    model = GAN(DCGANGenerator, DCGANDiscriminator, optimizer_g=gan_adam, optimizer_d=gan_adam, latent_dim=100)
    return model, data


CASES = {
    "vae": (make_vae, bare_vae, 0.88, "Burda VAE 784-200-200-50, batch 128"),
    "dcgan": (make_dcgan, bare_dcgan, 0.95, "DCGAN 32x32x1, ngf = ndf = 64, batch 64"),
}


def measure(case: str, rounds: int, root: str) -> list[dict[str, float]]:
    """Images per second of both and their ratio, for each round."""
    make, make_bare, _, _ = CASES[case]
    pl.seed_everything(0, verbose=False)
    results = take_turns(*make(root), lambda model, data: {"bare": make_bare(model, training_images(data))}, rounds)
    return [result | {"ratio": result["ours"] / result["bare"]} for result in results]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--rounds", type=int, default=10, help="epochs of each that are counted (default 10)")
    parser.add_argument("--root", default="data", help="folder of MNIST in torchvision's layout (default data)")
    parser.add_argument("--record", action="store_true", help="write results/benchmarks/CASE.json")
    options = parser.parse_args()
    try:
        results = measure(options.case, options.rounds, options.root)
    except UsageError as error:
        sys.exit(f"error: {error}")
    _, _, target, what = CASES[options.case]
    print(what)
    print(f"{'round':>6}{'bare images/s':>16}{'ours images/s':>16}{'ratio':>8}")
    for i, result in enumerate(results, 1):
        print(f"{i:>6}{result['bare']:>16,.0f}{result['ours']:>16,.0f}{result['ratio']:>8.3f}")
    median = {name: statistics.median(result[name] for result in results) for name in ("bare", "ours", "ratio")}
    print(f"median{median['bare']:>16,.0f}{median['ours']:>16,.0f}{median['ratio']:>8.3f}   (target: {target} or more)")
    if options.record:
        row = {
            "what": f"training: {what}",
            "ours": f"{median['ours']:,.0f} images/s",
            "theirs": f"bare PyTorch loop {median['bare']:,.0f} images/s",
            "ratio": median["ratio"],
            "note": f"median of {len(results)} interleaved rounds; target {target}",
        }
        write_record(options.case, [row], results)


if __name__ == "__main__":
    main()
