r"""The conditional variational autoencoder: p(x | y, z) and q(z | x, y), given a label y.

.. math:: \log p(x | y) \ge E_{q(z|x,y)} \log p(x | y, z) - KL(q(z | x, y) \| p(z))

References:
    Kingma et al., Semi-supervised Learning with Deep Generative Models, NeurIPS 2014, equation 6 (without the class prior).
    Sohn, Lee and Yan, Learning Structured Output Representation using Deep Conditional Generative Models, NeurIPS 2015.
"""

from __future__ import annotations

from typing import ClassVar

from lit_gen.vae.vae import VAE


class ConditionalVAE(VAE):
    """VAE whose encoder and decoder take the label; the prior of z does not depend on it.

    All bounds are on log p(x | y). ``sample`` draws labels uniformly where none are given.
    """

    conditional: ClassVar[bool] = True
