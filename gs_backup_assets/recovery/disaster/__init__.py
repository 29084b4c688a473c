"""Recovery from the complete loss of a database, in steps that can be resumed."""
