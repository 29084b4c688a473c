"""The bytes of backups in stores: put there, read back against their manifest, and the keys that open them."""
