"""Plans that put the pieces together, one folder for each thing that is done with backups."""
