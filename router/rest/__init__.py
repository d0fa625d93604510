"""REST: the V2 inference protocol over HTTP with JSON, for clients that do not speak gRPC.

A request becomes the gRPC message and takes the same way (`router.route`); its answer comes back as
JSON. Nothing here decides where a request goes.
"""
