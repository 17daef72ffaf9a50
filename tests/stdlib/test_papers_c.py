"""Papers on images, graphs and detection agree with plain torch versions of their objectives."""

import importlib

import pytest
from support import compare, finite

SLUGS = ("ms_ssim", "mono_vifi", "lvm_med", "yolov8_to")
LOSSES = [(slug, loss) for slug in SLUGS for loss in importlib.import_module(f"references.{slug}").REFERENCES]
EVERY = pytest.mark.parametrize(("slug", "loss"), LOSSES, ids=[f"{slug}.{loss}" for slug, loss in LOSSES])


def reference(slug, loss):
    return importlib.import_module(f"references.{slug}").REFERENCES[loss]


@EVERY
def test_value_and_gradients_equal_the_reference(slug, loss):
    compare(f"{slug}:{loss}", reference(slug, loss))


@EVERY
def test_value_and_gradients_are_finite_in_low_precision(slug, loss):
    finite(f"{slug}:{loss}", reference(slug, loss))
