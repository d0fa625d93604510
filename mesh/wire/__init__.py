"""Bytes to core and back:
protobuf, records of the store, files of users, status codes. Does no I/O.
"""
