"""The status document: what is proven, how old, and what is wrong."""
