"""One machine in the role of a cluster: processes from the same files that Kubernetes reads."""
