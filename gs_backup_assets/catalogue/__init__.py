"""What a backup is: manifests, proofs and policy; pure except for reading the store."""
