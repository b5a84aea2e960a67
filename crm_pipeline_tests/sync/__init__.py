"""The sync against a CRM in memory, on both databases."""
