"""The sample database: schema, generator and sabotage."""
