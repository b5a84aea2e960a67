"""Connectors: each speaks one CRM's dialect over HTTP, and knows no database."""
