"""SLD against its paper's equations, element by element."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from erase.errors import BadOption
from erase.methods.sld import SLD, Steering, safety
from erase.models import Condition
from erase.sampling.guides import PromptBatch
from tests.methods.trained import seen

OPTIONS = SLD(scale=2.0, threshold=0.3, warm_up=1, momentum_scale=0.5, momentum=0.4)


def by_hand(empty: float, prompted: float, unsafe: float, past: float) -> float:
    """gamma of one element, of the paper's equations 5 to 7."""
    difference = prompted - unsafe
    mu = 0.0 if difference >= 0.3 else min(1.0, abs(2.0 * difference))
    return mu * (unsafe - empty) + 0.5 * past


def test_what_is_taken_away_is_the_papers() -> None:
    empty, prompted, unsafe, past = seen(4)
    got = safety(empty, prompted, unsafe, past=past, options=OPTIONS)
    columns = (part.flatten().tolist() for part in (empty, prompted, unsafe, past))
    expected = [by_hand(*numbers) for numbers in zip(*columns, strict=True)]
    torch.testing.assert_close(got.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert (got == 0.5 * past).any()
    assert (got != 0.5 * past).any()


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_it_begins_after_its_warm_up_with_the_momentum_it_gathered(strength: float) -> None:
    predictions = seen(6)
    states, concept = Condition(torch.zeros(2, 1, 1)), Condition(torch.zeros(1, 1))
    guided = Steering(OPTIONS, concept, strength).begin(None, PromptBatch(("a", "b"), states, states, 3.0))

    def ask(step: int) -> Any:
        return lambda conditions: list(predictions[3 * step : 3 * step + 3])

    (e0, ep, unsafe), (f0, fp, funsafe) = predictions[:3], predictions[3:]
    torch.testing.assert_close(guided.predict(ask(0), 0), e0 + 3.0 * (ep - e0))
    first = safety(e0, ep, unsafe, past=0.0, options=OPTIONS)
    second = safety(f0, fp, funsafe, past=0.6 * first, options=OPTIONS)
    expected: Tensor = f0 + 3.0 * (fp - f0 - strength * second)
    torch.testing.assert_close(guided.predict(ask(1), 1), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(expected, f0 + 3.0 * (fp - f0))


@pytest.mark.parametrize(("options", "named"), [({"momentum": 1.0}, "momentum"), ({"scale": -1.0}, "scale")])
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        SLD(**options)
