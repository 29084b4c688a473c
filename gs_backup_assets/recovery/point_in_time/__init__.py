"""Recovery to a point in time: planned, carried out, and drilled."""
