"""The controller: what users apply to Kubernetes, brought about there and in the mesh.

It never opens the store of the mesh: nodes are told and asked over the management API. What follows
from what is in pure modules (`pods`, `workloads`, `scaling`, `config`); only `kube` speaks to the
API of Kubernetes.
"""
