"""Prompt tuning and XPrompt for T5 in JAX."""
