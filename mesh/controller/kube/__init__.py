"""The API of Kubernetes: the only part of the controller that speaks to it."""
