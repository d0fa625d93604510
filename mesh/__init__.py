"""The mesh: knows models, copies and nodes, and never imports `router`.

The words, each with one meaning:

predictor    the stable name that clients call
model        a backing model: one immutable model behind a predictor; its id is `<predictor>-<hash>`
active       the model that answers now
target       the model that answers once it is ready; the same as active when nothing is under way
way
transition   the move from active to target
runtime      a model server (MLServer, Triton, ...), described by a ServingRuntime
adapter      the program beside a runtime that pulls model files and serves the model runtime SPI
node         one mesh process: it routes and, where a runtime is beside it, holds copies
copy         a model on one node: Loading, Loaded, Unloading or Failed
store        where nodes agree: memory in one process, etcd in a mesh
view         the store as a node has seen it so far
flight       the one resolution of a name that all requests for it wait for
storage key  an entry of storage-config: the credentials of one object store
"""
