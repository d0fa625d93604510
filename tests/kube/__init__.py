"""Tests on a real API server, and most of them with real pods on a real node."""
