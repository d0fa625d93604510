"""The rules of the mesh, pure: no asyncio, clock, random, logging or os.

Time, randomness and ids come in as arguments; decisions go out as values with reasons. Drivers
carry them out.
"""
