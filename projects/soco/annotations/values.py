"""Values of a json: ids, numbers, and how messages show them."""
import math
from typing import Any

LARGEST = 2**63  # ids and sizes are 64-bit integers for NumPy

def as_id(value: Any) -> int | str | None:
    """Return an id in its plain form: whole numbers as integers, other texts as they are."""
    if type(value) is int:
        return value if abs(value) < LARGEST else None
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST:
        return int(value)
    if isinstance(value, str):
        text = value.strip()
        number = text.isascii() and text.isdigit() and len(text) < 18
        return int(text) if number else (text and value) or None
    return None


def as_number(value: Any) -> float | None:
    """Return a finite number that is given as a number or as text, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    return number if isinstance(value, str) else value


def label(index: int, row: dict) -> str:
    """Return the place and the id of an annotation, for messages."""
    return f'annotations[{index}] (id {shown(row["id"])})' if 'id' in row else f'annotations[{index}]'


def shown(value: Any) -> str:
    """Return a value of a json for a message, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + '…'
