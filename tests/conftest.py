"""Settings shared by all tests: reproducible generated cases, and few threads."""

import os

from hypothesis import HealthCheck, settings

# `ci` draws the same cases every run, so that a red build is red again; `explore` searches anew and longer:
# HYPOTHESIS_PROFILE=explore make test
settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("explore", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
