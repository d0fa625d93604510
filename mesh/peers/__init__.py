"""Other nodes: what is asked of them, and whether they answer. Not what is done about it."""
