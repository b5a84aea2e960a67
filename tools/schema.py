"""Write the JSON Schema of the connection file, for editors, from the model that reads it."""

from __future__ import annotations

import json
from pathlib import Path

from crm_pipeline.connection import Connection

PATH = Path(__file__).parents[1] / "docs" / "connection.schema.json"


def schema() -> str:
    """The schema as text."""
    return json.dumps(Connection.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(schema(), encoding="utf-8")
