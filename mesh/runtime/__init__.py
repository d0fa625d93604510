"""The runtime beside a node, behind one port:
the model runtime SPI and nothing of any one model server.
"""
