"""The terms of the loss are what their names say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from models.forms import gaussian_kl
from models.losses import (
    FREE_BITS,
    balanced_kl,
    crps,
    gaussian_nll,
    hide,
    share_score,
)

NUMBER = st.floats(-3, 3)
POSITIVE = st.floats(0.05, 3)


@given(NUMBER, POSITIVE, NUMBER, POSITIVE)
def test_kl_agrees_with_torch(a: float, s: float, b: float, t: float) -> None:
    mine = gaussian_kl(*(torch.tensor(x) for x in (a, s, b, t)))
    theirs = kl_divergence(Normal(a, s), Normal(b, t))
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-3, abs=1e-4)


def test_balanced_kl_teaches_the_prior_more_and_leaves_free_bits_alone() -> None:
    mean, prior = torch.tensor([0.5], requires_grad=True), torch.tensor([0.0], requires_grad=True)
    one = torch.ones(1)
    balanced_kl(mean, one, prior, one).sum().backward()  # type: ignore[no-untyped-call]
    assert mean.grad is not None
    assert prior.grad is not None
    assert prior.grad.abs() > mean.grad.abs() > 0
    near = torch.tensor([0.1], requires_grad=True)  # KL 0.005, below the free bits
    balanced_kl(near, one, torch.zeros(1), one).sum().backward()  # type: ignore[no-untyped-call]
    assert near.grad is not None
    assert near.grad.item() == 0.0
    assert FREE_BITS > 0.005


def test_nll_is_least_at_the_true_variance() -> None:
    error = 0.7 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    scores = {v: gaussian_nll(error, torch.tensor(v)).mean().item() for v in (0.2, 0.49, 1.2)}
    assert min(scores, key=scores.__getitem__) == 0.49


def test_crps_is_proper_it_prefers_the_true_spread() -> None:
    g = torch.Generator().manual_seed(0)
    truth = torch.randn(20_000, generator=g)
    scores = {
        s: crps(s * torch.randn(2, 20_000, generator=g), truth).mean().item() for s in (0.4, 1, 2)
    }
    assert min(scores, key=scores.__getitem__) == 1


def test_the_score_of_a_share_pulls_towards_the_mean_and_heeds_small_ones() -> None:
    truth = (torch.rand(200_000, generator=torch.Generator().manual_seed(0)) < 0.02).float()

    def pull(p: float) -> float:
        logit = torch.logit(torch.full_like(truth, p)).requires_grad_()
        (slope,) = torch.autograd.grad(share_score(logit, truth).mean(), logit)
        return slope.sum().item()

    assert pull(0.01) < 0 < pull(0.04)
    assert abs(pull(truth.mean().item())) < 0.02 * pull(0.04)
    none = torch.zeros(1)
    small, large = (torch.logit(torch.tensor([p])).requires_grad_() for p in (0.004, 0.4))
    slopes = [torch.autograd.grad(share_score(x, none).sum(), x)[0] for x in (small, large)]
    assert slopes[0] / slopes[1] > 5 * 0.004 / 0.4  # of the plain score: exactly 0.01


def test_hiding_only_takes_away() -> None:
    mask = (torch.rand(64, 20, 5, generator=torch.Generator().manual_seed(1)) < 0.8).float()
    hidden = hide(mask, torch.Generator().manual_seed(2))
    assert (hidden <= mask).all()
    assert torch.equal(hidden[:, 0], mask[:, 0])  # a sequence begins with what is there
    lost = 1 - hidden.sum() / mask.sum()
    assert 0.02 < lost.item() < 0.4
    assert (hidden.sum((1, 2)) < mask.sum((1, 2))).float().mean() > 0.2
