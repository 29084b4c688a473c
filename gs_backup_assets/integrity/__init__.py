"""Data rules, foreign keys and the report on them."""
