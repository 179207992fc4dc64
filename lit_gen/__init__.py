"""lit_gen: the classical generative models as PyTorch Lightning modules, trained, measured and sampled by one command."""

__version__ = "0.1.0"
