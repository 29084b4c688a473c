"""Messages to people: what is said, when, and how it is delivered."""
