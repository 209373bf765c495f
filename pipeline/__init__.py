"""The TFX pipeline: its configuration, its graph, the local runner and the command line."""
