"""The plug-in reverse SDE as a module: drift and diffusion, training loss, evidence lower bound.

State dict: ``T`` and ``base_sde.T`` (one parameter, shape [1], not trained), then the network's under ``a.``.

Random numbers come in the original's order: uniform times and probes from a generator on the host, the rest from one on
the device of the data; without generators, from PyTorch's default ones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from variational_sde.objectives import DsmNoise, ElboNoise, ElboTerms, dsm_loss, elbo_terms, perturb
from variational_sde.sde import VariancePreserving, check_lambda, reverse_diffusion, reverse_drift
from variational_sde.times import DebiasedTimes

__all__ = ["Generators", "PluginReverseSDE", "VariancePreservingSDE", "probe"]


@dataclass(frozen=True)
class Generators:
    """Where random numbers come from; None stands for PyTorch's default generator of that place."""

    host: torch.Generator | None = None
    device: torch.Generator | None = None

    @classmethod
    def seeded(cls, seed: int, device: torch.device) -> "Generators":
        """Generators of their own; on the host, one for both uses, as with the default ones."""
        host = torch.Generator().manual_seed(seed)
        return cls(host, host if device.type == "cpu" else torch.Generator(device).manual_seed(seed))

    def uniform(self, n: int, device: torch.device) -> Tensor:
        """``[n]`` in [0, 1), drawn on the host."""
        return torch.rand(n, generator=self.host).to(device)

    def uniform_like(self, x: Tensor) -> Tensor:
        """Drawn on the device."""
        return torch.rand(x.shape, generator=self.device, device=x.device, dtype=x.dtype)

    def normal_like(self, x: Tensor) -> Tensor:
        """Drawn on the device."""
        return torch.randn(x.shape, generator=self.device, device=x.device, dtype=x.dtype)


def probe(shape: tuple[int, ...], vtype: str, generator: torch.Generator | None = None) -> Tensor:
    """A vector v with E[v v^T] = I, on the host.

    Arguments:
        vtype: ``rademacher`` (-1 and 1), or ``gaussian`` (also ``normal``).

    Raises:
        ValueError: another type.
    """
    if vtype == "rademacher":
        # parity: the signs of a uniform draw, not an integer draw
        return (torch.rand(shape, generator=generator) >= 0.5).float() * 2 - 1
    if vtype in ("gaussian", "normal"):
        return torch.randn(shape, generator=generator)
    raise ValueError(f"vtype is {vtype!r}; it must be rademacher or gaussian")


class VariancePreservingSDE(nn.Module):
    """The inference SDE: betas, ``t_epsilon`` and the end time ``T`` (a number or a parameter that is shared)."""

    def __init__(
        self,
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        T: float | nn.Parameter = 1.0,
        t_epsilon: float = 0.001,
    ) -> None:
        super().__init__()
        self.beta_min = beta_min
        self.beta_max = beta_max
        self.t_epsilon = t_epsilon
        self.T = T if isinstance(T, nn.Parameter) else nn.Parameter(torch.tensor([float(T)]), requires_grad=False)

    def law(self) -> VariancePreserving:
        """The SDE's formulas; T is read from the device."""
        return VariancePreserving(self.beta_min, self.beta_max, float(self.T), self.t_epsilon)


class PluginReverseSDE(nn.Module):
    """The generative model: ``drift_a`` plugged into the reverse of ``base_sde``.

    Arguments:
        base_sde: the inference SDE.
        drift_a: the network a(y, t), ``[B, ...], [B] -> [B, ...]``.
        vtype: the probe of :meth:`elbo`.
        debias: draw the times of :meth:`dsm` from the debiased density.
        exact_times: that density exactly instead of in the original's float32 (not stored in checkpoints).
    """

    def __init__(
        self,
        base_sde: VariancePreservingSDE,
        drift_a: nn.Module,
        vtype: str = "rademacher",
        debias: bool = False,
        exact_times: bool = False,
    ) -> None:
        super().__init__()
        probe((0,), vtype)
        self.base_sde = base_sde
        self.a = drift_a
        self.T = base_sde.T
        self.vtype = vtype
        self.debias = debias
        self.law = base_sde.law()
        self.times = DebiasedTimes(self.law, exact_times) if debias else None

    def mu(self, t: Tensor, y: Tensor, lmbd: float = 0.0) -> Tensor:
        """The generative drift at time ``t`` (``[B]``, trailing axes of length one allowed), of the shape of ``y``."""
        s = (self.law.T - t.reshape(-1)).expand(len(y))
        return reverse_drift(self.law, self.a(y, s), y, s, check_lambda(lmbd))

    def sigma(self, t: Tensor, y: Tensor, lmbd: float = 0.0) -> Tensor:
        """The generative diffusion at time ``t``, of the shape of ``y``."""
        value = reverse_diffusion(self.law, self.law.T - t.reshape(-1), check_lambda(lmbd))
        return value.reshape(-1, *[1] * (y.ndim - 1)).expand_as(y)

    def draw_dsm_noise(self, x: Tensor, generators: Generators) -> DsmNoise:
        """Times, then noise, for a batch ``x`` ``[B, ...]``."""
        u = generators.uniform(len(x), x.device)
        t = self.times.inverse_cdf(u) if self.times else u * self.law.T
        return DsmNoise(t, generators.normal_like(x))

    def dsm(self, x: Tensor, noise: DsmNoise | None = None) -> Tensor:
        """The denoising score-matching loss of each sample of ``x`` ``[B, ...]``, ``[B]``."""
        with torch.enable_grad():
            return dsm_loss(self.law, self.a, x, noise or self.draw_dsm_noise(x, Generators()))

    def draw_elbo_noise(self, x: Tensor, generators: Generators) -> ElboNoise:
        """Times (uniform, also with ``debias``), noise, probe, noise at T for a batch ``x`` ``[B, ...]``."""
        t = generators.uniform(len(x), x.device) * self.law.T
        e = generators.normal_like(x)
        v = probe(tuple(x.shape), self.vtype, generators.host).to(x.device)
        return ElboNoise(t, e, v, generators.normal_like(x))

    def elbo_terms(self, x: Tensor, noise: ElboNoise | None = None) -> ElboTerms:
        """The three terms of the bound of ``x`` ``[B, ...]``; differentiable in training mode."""
        noise = noise or self.draw_elbo_noise(x, Generators())
        with torch.enable_grad():
            y = perturb(self.law, x, noise.t, noise.e).detach().requires_grad_()
            a = self.a(y, noise.t)
            m = reverse_drift(self.law, a, y, noise.t)
            (vjp,) = torch.autograd.grad(m, y, noise.v, create_graph=self.training)
            return elbo_terms(self.law, x, noise, a if self.training else a.detach(), vjp)

    def elbo(self, x: Tensor, noise: ElboNoise | None = None) -> Tensor:
        """The evidence lower bound of each sample of ``x`` ``[B, ...]`` by one random time slice, in nats, ``[B]``."""
        return self.elbo_terms(x, noise).elbo

    elbo_random_t_slice = elbo
    """The original's name."""
