"""A service that answers bulks of prompts: FastAPI, Celery on Valkey, llama.cpp on CPU."""
