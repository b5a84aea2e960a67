"""Small faithful CRMs with faults: for the demo, for rehearsals and for the tests.

Nothing here imports the rest of the project, so a fault in it cannot hide one there.
"""
