"""Measurements, with their commands: `make bench`. Nothing here is asserted in the test suite.

`direct`, `envoy`, `bare` and `router` are four ways to one native backend: to it, through Envoy,
through a `grpc.aio` proxy that does nothing but pass bytes, and through a node of ours.
"""
