"""The HTTP API: webhooks in, fetch, push and status on request."""
