"""Tests of crm_pipeline."""
