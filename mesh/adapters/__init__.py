"""SPI servers:
programs beside a model server, one module a server. They know no mesh, only models and files.
"""
