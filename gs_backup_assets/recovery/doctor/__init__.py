"""What backups need of the machine, the server, the stores and the keys, checked and explained."""
