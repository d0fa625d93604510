"""The store, behind one port:
where nodes agree. Knows bytes and keys, not what they mean, but for `follow`.
"""
