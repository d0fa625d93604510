"""The API of Kubernetes: whoever speaks to it does so by these."""
