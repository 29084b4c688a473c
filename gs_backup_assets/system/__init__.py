"""This machine: accounts, child processes and private folders."""
