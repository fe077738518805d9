"""Codes that a small autoencoder learns.

Shapes: N = items, B = items of a batch, D = width of the vectors, E = of the latent vectors, T = levels, K = codes.
"""

import itertools
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.generate import residual
from recsys.generate.balanced_kmeans import kmeans
from recsys.generate.items import Items, State
from recsys.spec import Spec

CODEBOOKS = "codebook_TKE"
SETTLED = 0.8  # share of the epochs after which no code begins anew


class RQVAE(Spec):
    """An encoder, residual codes of its output, and a decoder that gives the vector back from their sum.

    TIGER, Rajput et al. 2023, https://arxiv.org/abs/2305.05065: r_1 = z; c_t = nearest of r_t; r_(t+1) = r_t - e_(c_t);
    loss = |x - xhat|^2 + sum_t (|sg(r_t) - e_(c_t)|^2 + beta |r_t - sg(e_(c_t))|^2), xhat from z + sg(sum e - z), squares
    summed over numbers and levels. The residual is the paper's, with a gradient to the encoder at every level; released code
    often subtracts the straight-through estimate, which stops it after the first. Differs from the paper: AdamW; codes begin as
    centroids of k-means over all items and not a first batch; codes that no item of an epoch had begin anew at residuals
    (`restart`) until the last fifth of the epochs.
    """

    kind: Literal["rq_vae"] = "rq_vae"
    reads_vectors: ClassVar[bool] = True
    levels: int = Field(3, ge=1, le=8, description="codes of an item, the last one against collisions not counted")
    codes: int = Field(256, ge=2, le=65536, description="of each level; never more than there are items")
    hidden: tuple[int, ...] = Field((256, 128), description="widths of the encoder's layers; the decoder has them backwards")
    latent: int = Field(32, ge=1, description="numbers that are cut into codes")
    beta: float = Field(0.25, ge=0, description="how strongly the encoder is held to its codes")
    epochs: int = Field(200, ge=1)
    batch_size: int = Field(1024, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    restart: bool = Field(True, description="codes without items begin anew at the residuals of random items")

    def fit(self, items: Items, row_N: np.ndarray, vector_ND: np.ndarray, seed: int) -> tuple[np.ndarray, State]:
        """code_NT of these items, and the model."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            x_ND = torch.from_numpy(np.ascontiguousarray(vector_ND, np.float32))
            model = Autoencoder(self, x_ND.shape[1], min(self.codes, len(x_ND)))
            model.begin(x_ND, seed)
            state = self._train(model, x_ND)
        return self.encode(items, row_N, vector_ND, state), state

    def encode(self, items: Items, row_N: np.ndarray, vector_ND: np.ndarray, state: State) -> np.ndarray:
        """code_NT of items, seen or not."""
        model = self._model(state)
        with torch.no_grad():
            latent_NE = model.encoder(torch.from_numpy(np.ascontiguousarray(vector_ND, np.float32))).numpy()
        return residual.encode(latent_NE, list(state[CODEBOOKS]))

    def reconstruct(self, code_NT: np.ndarray, state: State) -> Iterator[np.ndarray]:
        """What the decoder makes of the first codes of every item, after each level."""
        model = self._model(state)
        for sum_NE in residual.partial_sums(code_NT, list(state[CODEBOOKS])):
            with torch.no_grad():
                yield model.decoder(torch.from_numpy(sum_NE)).numpy()

    def sizes(self, state: State) -> tuple[int, ...]:
        return (state[CODEBOOKS].shape[1],) * self.levels

    def _model(self, state: State) -> "Autoencoder":
        with torch.random.fork_rng(devices=[]):  # the numbers that it begins with are thrown away
            model = Autoencoder(self, state["encoder.0.weight"].shape[1], state[CODEBOOKS].shape[1])
        model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in state.items()})
        return model.eval()

    def _train(self, model: "Autoencoder", x_ND: Tensor) -> State:
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.learning_rate)
        for epoch in range(self.epochs):
            used_TK = torch.zeros(model.codebook_TKE.shape[:2], dtype=torch.bool)
            for chosen in torch.randperm(len(x_ND)).split(self.batch_size):
                loss_B, code_BT = model(x_ND[chosen])
                optimizer.zero_grad()
                loss_B.mean().backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                used_TK[torch.arange(self.levels), code_BT] = True
            if self.restart and epoch < SETTLED * self.epochs:
                model.restart(x_ND, used_TK)
        return {name: value.numpy().copy() for name, value in model.state_dict().items()}


class Autoencoder(nn.Module):
    def __init__(self, spec: RQVAE, width: int, codes: int):
        super().__init__()
        self.beta = spec.beta
        self.encoder = _layers(width, *spec.hidden, spec.latent)
        self.decoder = _layers(spec.latent, *reversed(spec.hidden), width)
        self.codebook_TKE = nn.Parameter(torch.zeros(spec.levels, codes, spec.latent))

    def forward(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """loss_B and code_BT."""
        latent_BE = self.encoder(x_BD)
        loss_B, sum_BE, code_BT = quantize(latent_BE, self.codebook_TKE, self.beta)
        guess_BD = self.decoder(latent_BE + (sum_BE - latent_BE).detach())
        return ((x_BD - guess_BD) ** 2).sum(1) + loss_B, code_BT

    @torch.no_grad()
    def begin(self, x_ND: Tensor, seed: int) -> None:
        """The codes of each level at centroids of what the levels before left over."""
        left_NE = self.encoder(x_ND).numpy()
        for level, codebook_KE in enumerate(self.codebook_TKE):
            centroid_KE = kmeans(left_NE, len(codebook_KE), iterations=25, restarts=1, seed=seed + level)
            codebook_KE.copy_(torch.from_numpy(centroid_KE))
            left_NE = left_NE - centroid_KE[residual.nearest(left_NE, centroid_KE)]

    @torch.no_grad()
    def restart(self, x_ND: Tensor, used_TK: Tensor) -> None:
        """Move the codes that nothing used to residuals of random items at their level."""
        left_NE = self.encoder(x_ND)
        for codebook_KE, used_K in zip(self.codebook_TKE, used_TK, strict=True):
            code_N = nearest(left_NE, codebook_KE)
            after_NE = left_NE - codebook_KE[code_N]
            dead = (~used_K).nonzero()[:, 0]
            codebook_KE[dead] = left_NE[torch.randint(len(left_NE), (len(dead),))]
            left_NE = after_NE


def quantize(latent_BE: Tensor, codebook_TKE: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of codes and encoder per item, the sum of the chosen codes, and code_BT."""
    left_BE, sum_BE, codes = latent_BE, torch.zeros_like(latent_BE), []
    loss_B = latent_BE.new_zeros(len(latent_BE))
    for codebook_KE in codebook_TKE:
        code_B = nearest(left_BE.detach(), codebook_KE.detach())
        chosen_BE = codebook_KE[code_B]
        loss_B = loss_B + ((left_BE.detach() - chosen_BE) ** 2).sum(1) + beta * ((left_BE - chosen_BE.detach()) ** 2).sum(1)
        left_BE, sum_BE = left_BE - chosen_BE.detach(), sum_BE + chosen_BE
        codes.append(code_B)
    return loss_B, sum_BE, torch.stack(codes, dim=1)


def nearest(left_BE: Tensor, codebook_KE: Tensor) -> Tensor:
    """code_B by squared distance, without the part that all codes share."""
    return ((codebook_KE**2).sum(1) - 2 * left_BE @ codebook_KE.T).argmin(1)


def _layers(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
