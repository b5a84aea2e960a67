"""A program that drives a simulated Zoho account with the vendor's own client, and prints what it made of it.

A program of its own: the client keeps its settings and its log for the whole process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store.file_store import FileStore
from zohocrmsdk.src.com.zoho.api.logger import Logger
from zohocrmsdk.src.com.zoho.crm.api import HeaderMap, Initializer, ParameterMap
from zohocrmsdk.src.com.zoho.crm.api.dc import DataCenter
from zohocrmsdk.src.com.zoho.crm.api.record import (
    BodyWrapper,
    DeleteRecordsParam,
    GetDeletedRecordsParam,
    GetRecordsParam,
    Record,
    RecordOperations,
)
from zohocrmsdk.src.com.zoho.crm.api.sdk_config import SDKConfig


def main(base: str, folder: Path) -> dict[str, Any]:
    """Read, write and delete contacts."""
    sign_in(base, folder)
    contacts = RecordOperations("Contacts")
    told: dict[str, Any] = read_all(contacts)
    created = contacts.create_records(body_of(record(Last_Name="Uji", Chat_Id="628110001@c.us")))
    new_id = created.get_object().get_data()[0].get_details()["id"]
    changed, wrong = record(Description="baru"), record(Description="x")
    changed.set_id(int(new_id))
    wrong.set_id(999)
    again = body_of(record(Last_Name="Dua", Chat_Id="628110001@c.us"))
    again.set_duplicate_check_fields(["Chat_Id"])
    told |= {
        "created": codes(created),
        "updated": codes(contacts.update_records(body_of(changed, wrong))),
        "upserted": codes(contacts.upsert_records(again)),
        "unknown": contacts.get_record(424242).get_status_code(),
        "new": str(new_id),
    }
    params = ParameterMap()
    params.add(DeleteRecordsParam.ids, str(new_id))
    told["deleted"] = codes(contacts.delete_records(params))
    params = ParameterMap()
    params.add(GetDeletedRecordsParam.type, "all")
    gone = contacts.get_deleted_records(params, HeaderMap()).get_object().get_data()
    return {**told, "gone": [str(each.get_id()) for each in gone]}


def sign_in(base: str, folder: Path) -> None:
    """Get tokens by a refresh token."""
    token = OAuthToken(
        client_id="sim-client", client_secret="sim-secret", refresh_token="sim-refresh", find_user=False
    )
    Initializer.initialize(
        environment=DataCenter.Environment(base, base + "/oauth/v2/token", base),
        token=token,
        store=FileStore(str(folder / "tokens.txt")),
        sdk_config=SDKConfig(auto_refresh_fields=False, pick_list_validation=False),
        resource_path=str(folder),
        logger=Logger.get_instance(Logger.Levels.ERROR, str(folder / "sdk.log")),
    )


def read_all(contacts: Any) -> dict[str, Any]:
    """Read every contact by page tokens."""
    ids: list[str] = []
    token = None
    while True:
        params = ParameterMap()
        params.add(GetRecordsParam.fields, "Last_Name,Chat_Id,Capacity,Modified_Time,Event_Date")
        params.add(GetRecordsParam.per_page, 200)
        params.add(GetRecordsParam.sort_by, "Modified_Time")
        params.add(GetRecordsParam.sort_order, "asc")
        if token:
            params.add(GetRecordsParam.page_token, token)
        page = contacts.get_records(params, HeaderMap()).get_object()
        ids += [str(each.get_id()) for each in page.get_data()]
        token = page.get_info().get_next_page_token()
        if not page.get_info().get_more_records():
            return {"read": len(set(ids)), "capacity": page.get_data()[0].get_key_value("Capacity")}


def record(**fields: str) -> Any:
    """A record of some fields."""
    made = Record()
    for name, value in fields.items():
        made.add_key_value(name, value)
    return made


def body_of(*records: Any) -> Any:
    """The body of a write."""
    body = BodyWrapper()
    body.set_data(list(records))
    return body


def codes(answer: Any) -> list[str]:
    """What became of each row."""
    return [each.get_code().get_value() for each in answer.get_object().get_data()]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
