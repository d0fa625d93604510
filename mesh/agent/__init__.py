"""The engine of one node:
carries out what core decides. The only writer of its copies and of its node record.
"""
