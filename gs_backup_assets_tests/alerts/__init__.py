"""Tests of the messages: what is said, when, and how it is delivered."""
