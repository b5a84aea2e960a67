"""Alerting: people are told when something is wrong, once, and when it is over."""
