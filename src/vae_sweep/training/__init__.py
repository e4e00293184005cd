"""The training loop, its loss, and what makes it repeatable."""
