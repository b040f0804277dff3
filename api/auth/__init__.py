"""Who is asking: API keys, names with passwords, and Hugging Face logins."""
