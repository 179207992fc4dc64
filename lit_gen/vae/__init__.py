"""The variational family: autoencoders, VAEs and importance weighted autoencoders."""

from lit_gen.vae.autoencoder import Autoencoder
from lit_gen.vae.base import EncoderDecoder
from lit_gen.vae.conditional_vae import ConditionalVAE
from lit_gen.vae.denoising_autoencoder import DenoisingAutoencoder
from lit_gen.vae.inpainting_vae import InpaintingVAE
from lit_gen.vae.iwae import IWAE
from lit_gen.vae.likelihoods import Bernoulli, Categorical, Gaussian, LearnedGaussian, Likelihood
from lit_gen.vae.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from lit_gen.vae.semi_supervised_vae import SemiSupervisedVAE
from lit_gen.vae.vae import VAE

__all__ = [
    "IWAE",
    "VAE",
    "Autoencoder",
    "Bernoulli",
    "Categorical",
    "ConditionalVAE",
    "ConvDecoder",
    "ConvEncoder",
    "DenoisingAutoencoder",
    "EncoderDecoder",
    "Gaussian",
    "InpaintingVAE",
    "LearnedGaussian",
    "Likelihood",
    "MLPDecoder",
    "MLPEncoder",
    "SemiSupervisedVAE",
]
