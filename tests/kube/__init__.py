"""Tests on a real API server; those below `node` with real pods on a real node."""
