"""``./run stack``: the production stack of docker-compose.yml. Standard library only."""
