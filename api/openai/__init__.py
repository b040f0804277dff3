"""OpenAI's image API."""
