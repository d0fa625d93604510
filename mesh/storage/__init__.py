"""Pulls model files to the local disk:
object stores and storage-config. Knows nothing of models or runtimes.
"""
