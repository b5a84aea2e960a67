"""The heart of the sync: mapping, identity, merge, pull, apply and push."""
