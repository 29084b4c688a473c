"""Everything that talks to a PostgreSQL server or runs one of PostgreSQL's programs."""
