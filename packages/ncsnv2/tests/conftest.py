"""Seeds and flags that programs set stay theirs."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _global_state():
    state, benchmark = torch.get_rng_state(), torch.backends.cudnn.benchmark
    yield
    torch.set_rng_state(state)
    torch.backends.cudnn.benchmark = benchmark
