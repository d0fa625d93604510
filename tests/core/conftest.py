"""Hypothesis for the pure tests: no deadline for one example, as the machine may be busy."""

from hypothesis import HealthCheck, settings

settings.register_profile("wml", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wml")
