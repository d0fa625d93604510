"""Settings, logs and tasks: a leaf that every layer may use and that uses none."""
