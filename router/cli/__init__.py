"""The command `wml-serving`: reads what people type and prints what they read. Decides nothing."""
