"""The application around a database: commands that stop, repoint and start it, and its health."""
