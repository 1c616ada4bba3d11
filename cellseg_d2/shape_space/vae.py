"""A small convolutional variational autoencoder of normalised shapes.

Kingma & Welling, Auto-Encoding Variational Bayes, 2014. A pixel's covered share is modelled as by a Bernoulli
distribution, whose cross-entropy has the share's own entropy as its least value; that is subtracted, so that a perfect
picture costs nothing.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class ShapeVAE(nn.Module):
    """Three convolutions of stride 2, two linear layers, and the same backwards.

    Args:
        size: side of the pictures, a multiple of 8.
        latent: number of latent dimensions.
        width: channels of the first convolution; the following have two and four times as many.
    """

    def __init__(self, size: int = 32, latent: int = 2, width: int = 8):
        super().__init__()
        self.size, self.latent, self.width = size, latent, width
        self._side = size // 8
        flat, hidden = 4 * width * self._side**2, 8 * width
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(flat, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 2 * latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.SiLU(),
            nn.Linear(hidden, flat),
            nn.SiLU(),
            nn.Unflatten(1, (4 * width, self._side, self._side)),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(width, 1, 4, 2, 1),
        )

    def encode(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the variance ``(N, latent)`` of the positions of pictures ``(N, S, S)`` in 0…1."""
        mean, log_variance = self.encoder(pictures[:, None] - 0.5).chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 4)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, S, S)`` of the pictures at ``latents`` ``(N, latent)``."""
        return self.decoder(latents)[:, 0]

    def forward(self, pictures: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both parts of the negative evidence lower bound, in nats: :func:`misfit` and :func:`divergence`, ``(N,)``.

        Args:
            pictures: ``(N, S, S)`` in 0…1.
            noise: standard normal ``(N, latent)``; zeros take the mean of each picture's latents.
        """
        mean, log_variance = self.encode(pictures)
        logits = self.decode(mean + noise * torch.exp(0.5 * log_variance))
        return misfit(logits, pictures), divergence(mean, log_variance)


def misfit(logits: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """How far decoded pictures are from the true ones: Kullback-Leibler divergence summed over the pixels, ``(N,)``."""
    cross = F.binary_cross_entropy_with_logits(logits, pictures, reduction="none")
    own = -(torch.xlogy(pictures, pictures) + torch.xlogy(1 - pictures, 1 - pictures))
    return (cross - own).sum(dim=(1, 2))


def divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of normal distributions from the standard one, ``(N,)``."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1)
