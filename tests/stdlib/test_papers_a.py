"""Papers on value learning, classification, language and online learning agree with references."""

import pytest
from references import codegen2, ensloss, regret_loss, stop_regressing, z_loss
from support import compare, finite

PAPERS = {
    "stop_regressing": stop_regressing,
    "z_loss": z_loss,
    "ensloss": ensloss,
    "codegen2": codegen2,
    "regret_loss": regret_loss,
}
LOSSES = [
    pytest.param(f"{slug}:{name}", reference, id=f"{slug}.{name}")
    for slug, module in PAPERS.items()
    for name, reference in module.REFERENCES.items()
]
EVERY = pytest.mark.parametrize(("target", "reference"), LOSSES)


@EVERY
def test_value_and_gradients_equal_the_reference(target, reference):
    compare(target, reference)


@EVERY
def test_value_and_gradients_are_finite_in_low_precision(target, reference):
    finite(target, reference)
