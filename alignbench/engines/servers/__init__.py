"""Servers that speak the OpenAI protocol: `openai:MODEL@BASE_URL`."""
