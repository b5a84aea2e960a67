"""Invented organiser contacts of the Indonesian event market, the same for the same seed.

Nobody here exists: surnames and companies are coined words, and every phone starts with
0810, a mobile prefix no Indonesian operator holds, though its form is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

FIRST_ID = 100_001
"""Id of the first contact; ids are decimal numbers as text."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split("|"))


_GIVEN = _words(
    "Raka|Laksmi|Danu|Mira|Tegar|Sekar|Bagas|Nirmala|Galih|Ayunda|Satria|Wulan|"
    "Panji|Kirana|Jaka|Larasati|Bayu|Citra|Guntur|Melati|Abimanyu|Puspa|Elang|Ratih"
)
_SURNAME_HEAD = _words("Wira|Tirta|Kusu|Cakra|Nara|Gala|Sandhi|Wening|Praba|Lintar|Bhuwa|Reksa")
_SURNAME_TAIL = _words("jagara|bayuna|mandaru|wangsita|lintara|dharuka|pranoka|sadhira|nugrata|kelana")
_FORMS = _words("PT|CV|Komunitas|Yayasan|Himpunan|Sanggar|Karang Taruna")
_COINED_HEAD = _words("Seka|Wala|Tanu|Aru|Loka|Gema|Rimba|Nusa|Samu|Kala|Bumi|Dira")
_COINED_TAIL = _words("rloka|mbara|walaka|ndaya|nikara|setala|bayura|gantara|rupaksa|tirana")
_TRADES = _words("Kreatif|Promosindo|Organizer|Produksi|Entertainment|Panggung|Event|Media|Seni Budaya")
_EVENT_KINDS = _words(
    "Festival Kopi|Pentas Seni|Konser Amal|Jazz Senja|Lari Malam|Pameran Buku|Festival Kuliner|"
    "Temu Pengembang|Pasar Kreatif|Wayang Semalam|Turnamen Gim|Kelas Fotografi|Parade Budaya"
)
_CITIES = _words("Bandung|Surabaya|Yogyakarta|Semarang|Malang|Medan|Makassar|Denpasar|Bogor|Solo")
_NOTES = _words(
    "Minta penawaran untuk dua hari acara.|Sudah kirim proposal, tunggu rapat panitia.|"
    "Hubungi lagi setelah Lebaran.|Tahun lalu pakai tiket kertas.|Ingin gelang QR dan gate sendiri.|"
    "Panitia baru, butuh demo aplikasi.|Tanya biaya layanan & pajak hiburan.|"
    "Venue belum pasti: indoor/outdoor?|Pembayaran minta termin 50%-50%."
)
_SALES_REPS = _words("Rara|Danang|Mitha|Togar|Lestari")

_PRICES = (0, 25_000, 35_000, 50_000, 75_000, 100_000, 150_000, 225_000, 250_000, 350_000, 750_000, 1_500_000)
_CAPACITIES = (50, 100, 150, 250, 400, 500, 750, 1_000, 1_500, 2_500, 5_000, 12_000)
_STATUSES = ("prospect", "negotiating", "deal", "lost", "negotiation", "closed")
_STATUS_WEIGHTS = (48, 18, 16, 12, 3, 3)
"""The last two are synonyms that drop-downs of such CRMs really write."""
_TASKS = ("To Do", "Follow Up", "Next Year", None)

_HAS_NOTES, _HAS_INSTAGRAM, _IS_IMPORTED = 0.6, 0.7, 0.1
_KNOWS_MEETING, _KNOWS_SALE, _KNOWS_EVENT = 0.7, 0.2, 0.8
"""Shares of contacts of whom something is known."""
_LONGEST_AGE = timedelta(days=400)
_PHONES = 10_000_000


def phone_of(index: int) -> str:
    """National digits of the contact at ``index`` (0 to 9,999,999), country code first, unique for each."""
    if not 0 <= index < _PHONES:
        raise ValueError(f"the synthetic phone range holds {_PHONES:,} numbers, not number {index}")
    return f"628100{index:07d}"


def iso(moment: datetime) -> str:
    """UTC text with microseconds, as this CRM stamps changes: ``2026-01-05T10:00:00.000000Z``."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def generate_contacts(
    count: int, *, seed: int = 1, now: datetime | None = None, days: float = 30.0
) -> Iterator[dict[str, Any]]:
    """Yield ``count`` contacts in the guide's external format, ids from ``FIRST_ID`` upwards.

    The same ``seed`` and ``now`` give the same contacts, and a longer list starts with the shorter one.
    ``updated_at`` lies within the last ``days`` before ``now`` (default: the present); about one
    contact in ten shares its full hour with others, as bulk imports leave it.
    """
    moment = now or datetime.now(UTC)
    random = Random(seed)
    for index in range(count):
        yield _contact(random, index, moment, timedelta(days=days))


def _contact(random: Random, index: int, now: datetime, span: timedelta) -> dict[str, Any]:
    name = f"{random.choice(_GIVEN)} {random.choice(_SURNAME_HEAD)}{random.choice(_SURNAME_TAIL)}"
    coined = random.choice(_COINED_HEAD) + random.choice(_COINED_TAIL)
    status = random.choices(_STATUSES, _STATUS_WEIGHTS)[0]
    updated, created = _stamps(random, now, span)
    record: dict[str, Any] = {
        "id": str(FIRST_ID + index),
        "phone": f"{phone_of(index)}@c.us",
        "name": name,
        "company": f"{random.choice(_FORMS)} {coined} {random.choice(_TRADES)}",
        "event_name": "",
        "ticket_price": random.choice(_PRICES),
        "capacity": random.choice(_CAPACITIES),
        "status": status,
        "notes": random.choice(_NOTES) if random.random() < _HAS_NOTES else None,
        "phone_1": _contact_person(random, index),
        "sales_rep": random.choice(_SALES_REPS),
        "task_status": random.choice(_TASKS),
        **_dates(random, now, status),
        "created_at": iso(created),
        "updated_at": iso(updated),
    }
    year = (record["event_date"] or iso(now))[:4]
    record["event_name"] = f"{random.choice(_EVENT_KINDS)} {random.choice(_CITIES)} {year}"
    if random.random() < _HAS_INSTAGRAM:  # the others lack the attribute, as sparse CRMs leave it out
        record["instagram"] = f"@{coined.lower()}.{index % 1000:03d}"
    return record


def _contact_person(random: Random, index: int) -> str:
    """The same number as people write it down: national, with or without separators, or with the plus."""
    digits = phone_of(index)[2:]
    first, second, third = digits[:3], digits[3:7], digits[7:]
    return random.choice((f"0{digits}", f"0{first}-{second}-{third}", f"+62 {first} {second} {third}"))


def _dates(random: Random, now: datetime, status: str) -> dict[str, str | None]:
    """Meeting, ticket sale and event day, in that order of time; far deals know more of them."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    meeting = hour + timedelta(days=random.randint(-20, 30), hours=random.randint(0, 9))
    sale = meeting + timedelta(days=random.randint(5, 60))
    event = sale + timedelta(days=random.randint(14, 120), minutes=random.choice((0, 30)))
    sure = status in {"deal", "closed"}
    return {
        "meeting_date": _minute(meeting) if sure or random.random() < _KNOWS_MEETING else None,
        "sale_date": _minute(sale) if sure or random.random() < _KNOWS_SALE else None,
        "event_date": _minute(event) if sure or random.random() < _KNOWS_EVENT else None,
    }


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:00Z}"


def _stamps(random: Random, now: datetime, span: timedelta) -> tuple[datetime, datetime]:
    """When the contact was last changed, and when it was created before that."""
    updated = now - random.random() * span
    if random.random() < _IS_IMPORTED:
        updated = max(updated.replace(minute=0, second=0, microsecond=0), now - span)
    return updated, updated - random.random() * _LONGEST_AGE
