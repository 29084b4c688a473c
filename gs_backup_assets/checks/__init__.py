"""Names and specifications of the asset checks."""
