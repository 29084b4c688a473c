"""Plans that put the pieces together: take, check, prove and restore a backup."""
