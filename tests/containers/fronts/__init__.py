"""What stands for Elasticsearch and Kibana, in containers of their names."""
