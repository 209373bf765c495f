"""What the pipeline reads: known corpora, how they become JSON lines, the raw schema."""
