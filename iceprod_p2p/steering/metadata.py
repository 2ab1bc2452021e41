"""DIF and Plus: the names of their elements, and what `$metadata(...)` finds in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from iceprod_p2p.model.steering import Metadata, MetadataField, Value

_PERSON: Final = ("Role", "First_Name", "Last_Name", "Email")
# Each element that has elements inside, and which.  Source: IceProd's iceprod.v3.dtd, section DIF_PLUS.
DIF_PLUS_ELEMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "DIF_Plus": ("DIF", "Plus"),
    "DIF": (
        *("Entry_ID", "Entry_Title", "Parameters", "ISO_Topic_Category", "Data_Center", "Summary"),
        *(
            "Metadata_Name",
            "Metadata_Version",
            "Personnel",
            "Sensor_Name",
            "Source_Name",
            "DIF_Creation_Date",
        ),
    ),
    "Data_Center": ("Data_Center_Name", "Personnel"),
    "Personnel": _PERSON,
    "Plus": (
        *("Start_DateTime", "End_DateTime", "Category", "Subcategory", "Run_Number", "I3Db_Key", "SimDb_Key"),
        *("Project", "Steering_File", "Log_File", "Command_Line"),
    ),
    "Project": ("Name", "Version"),
}
# IceProd 2's JSON names that are not the DTD's names in lower case.
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "start": "Start_DateTime",
    "end": "End_DateTime",
    "data_ceter": "Data_Center",  # Spelt so in IceProd 2's files.
}


def element_name(parent: str, name: str) -> str:
    """Return the DTD's name for `name` inside `parent`, whatever its case; empty when there is none."""
    other = _OTHER_NAMES.get(name.lower())
    for known in DIF_PLUS_ELEMENTS.get(parent, ()):
        if known.lower() == name.lower() or known == other:
            return known
    return ""


def lookup_table(metadata: Metadata | None) -> dict[str, str]:
    """Return every text of the metadata under its name, its name in lower case, and IceProd 2's name.

    DIF comes before Plus and the first of several before the others; a nested text is found under its own name and
    under its path with dots (``Data_Center.Personnel.Email``).
    """
    table: dict[str, str] = {}
    if metadata is not None:
        for fields in (metadata.dif, metadata.plus):
            _enter(table, fields, "")
        for short, name in _OTHER_NAMES.items():
            if name in table:
                table.setdefault(short, table[name])
    return table


def _enter(table: dict[str, str], fields: tuple[MetadataField, ...], prefix: str) -> None:
    for field in fields:
        path = f"{prefix}{field.name}"
        if isinstance(field.value, str):
            for name in (field.name, field.name.lower(), path, path.lower()):
                table.setdefault(name, field.value)
        else:
            _enter(table, field.value, f"{path}.")


def metadata_table(metadata: Mapping[str, Value]) -> dict[str, Value]:
    """Return one flat table of names from metadata given as JSON: flat, or with dif and plus inside."""
    table: dict[str, Value] = {}
    for name, value in metadata.items():
        if name.lower() in ("dif", "plus") and isinstance(value, dict):
            for inner, item in value.items():
                table.setdefault(inner, item)
        else:
            table[name] = value
    return table
