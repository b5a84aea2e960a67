-- Beside the database of the contacts, one for Dagster's own record of runs.
CREATE DATABASE dagster;
