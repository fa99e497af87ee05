"""What travels to the service and back: records in, prices out, refusals in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from shared.data.curation import assemble
from shared.data.parsing import records_table
from shared.data.schema import Product

MOST_PRODUCTS = 64
"""Products in a request."""
LONGEST_TITLE, LONGEST_TEXT, MOST_TEXTS, LONGEST_DETAILS = 2_000, 20_000, 200, 50_000
"""Characters of a title and of another text, texts in a list, characters of the details."""

EXAMPLE = {
    "title": "Stainless steel electric kettle, 1.7 litres, 3000 W",
    "features": ["Boils a cup in 45 seconds", "Switches itself off"],
    "description": ["A kettle with a window that shows how much water is in it."],
    "details": {"Brand": "Example", "Capacity": "1.7 litres", "Material": "Stainless steel"},
    "main_category": "Home and Kitchen",
}


def _listed(value: Any) -> Any:
    """Take nothing as no text, and a single text as a list of one: shops do list them so."""
    return [] if value is None else [value] if isinstance(value, str) else value


def _title(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty")
    return value


def _details(value: Any) -> Any:
    if value is not None and not isinstance(value, str | dict):
        raise ValueError("must be an object, or JSON text")
    if isinstance(value, str) and len(value) > LONGEST_DETAILS:
        raise ValueError(f"has {len(value):,} characters; at most {LONGEST_DETAILS:,} are allowed")
    return value


_TEXT = {"type": "string", "maxLength": LONGEST_TEXT}
_TEXTS = {"anyOf": [{"type": "array", "items": _TEXT, "maxItems": MOST_TEXTS}, _TEXT,
                    {"type": "null"}]}  # fmt: skip
_JSON = {"anyOf": [{"type": "object"}, {"type": "string", "maxLength": LONGEST_DETAILS},
                   {"type": "null"}]}  # fmt: skip

_VISIBLE = r"[^\s\u001c-\u001f\u0085]"
"""What Python calls blank and JSON's patterns do not is blank, too."""

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Short = Annotated[str, Field(max_length=LONGEST_TITLE)]
Texts = Annotated[
    list[Text], Field(max_length=MOST_TEXTS), BeforeValidator(_listed), WithJsonSchema(_TEXTS)
]
Title = Annotated[Short, BeforeValidator(_title),
                  WithJsonSchema({"type": "string", "maxLength": LONGEST_TITLE, "minLength": 1,
                                  "pattern": _VISIBLE})]  # fmt: skip


class Record(BaseModel):
    """One product as a shop lists it. Only ``title`` is needed; other fields are ignored.

    Even a ``price`` is: it never reaches the model.
    """

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [EXAMPLE]})

    title: Title
    features: Texts = []
    description: Texts = []
    details: Annotated[dict[str, Any] | str | None, BeforeValidator(_details),
                       WithJsonSchema(_JSON)] = None  # fmt: skip
    main_category: Short | None = None
    categories: Annotated[list[Short], Field(max_length=MOST_TEXTS)] | None = None
    store: Short | None = None
    parent_asin: Annotated[str, Field(max_length=200)] | None = None


class PriceRequest(BaseModel):
    """Products to be priced."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"products": [EXAMPLE]}]}
    )

    products: Annotated[list[Record], Field(min_length=1, max_length=MOST_PRODUCTS)]


class PriceResult(BaseModel):
    """What one product costs, in the unit that ``currency`` names.

    ``price`` is null where there is none, and ``error`` says why; ``low`` and ``high`` are null
    where the model gives no interval. ``model`` is there only if another version than that of the
    answer gave this price.
    """

    price: float | None
    low: float | None
    high: float | None
    currency: str = "USD"
    error: str | None
    model: str | None = None


class PriceResponse(BaseModel):
    """The prices, in the order of the products, and the version of the model that said so."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "model": "v3", "latency_ms": 14.2,
        "results": [{"price": 39.5, "low": 18.9, "high": 82.6, "currency": "USD", "error": None}],
    }]})  # fmt: skip

    model: str
    results: list[PriceResult]
    latency_ms: float


class Problem(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    problem: str


class ErrorDetail(BaseModel):
    """Why a request was refused: words for people, a code for programs."""

    message: str
    type: str
    code: str
    fields: list[Problem] | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


def products_of(records: Sequence[dict]) -> list[Product]:
    """Return raw records as products, cleaned by the code that cleaned the training data."""
    items = assemble(records_table(list(records))).to_pylist()
    return [
        Product.from_item({**item, "id": item["id"] or f"record-{place}"})
        for place, item in enumerate(items, start=1)
    ]


def result(
    price: float, low: float, high: float, error: str | None, currency: str = "USD"
) -> dict[str, Any]:
    """Return one product's result, to the cent; NaN becomes null, and never 0."""
    failed = not math.isfinite(price)
    bounds = [
        None if failed or not math.isfinite(bound) else _cents(bound) for bound in (low, high)
    ]
    return {
        "price": None if failed else _cents(price), "low": bounds[0], "high": bounds[1],
        "currency": currency, "error": (error or "the pricer gave no price") if failed else None,
    }  # fmt: skip


def _cents(dollars: float) -> float:
    return max(round(dollars, 2), 0.01) if dollars > 0 else 0.0


_WORDS = {
    "missing": "is missing",
    "string_type": "must be text",
    "string_unicode": "is no valid text",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dataclass_type": "must be an object",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
}


def problems(errors: Iterable[dict]) -> list[dict[str, str]]:
    """Return what pydantic found, as {"field": "products[0].title", "problem": "is missing"}.

    What was sent is not repeated: it may be long, secret, or no valid text.
    """
    found = []
    for error in list(errors)[:10]:
        kind, context = error["type"], error.get("ctx") or {}
        if kind == "json_invalid":
            found.append({"field": "body", "problem": f"is no valid JSON ({context.get('error')})"})
            continue
        said = _WORDS.get(kind)
        if kind == "value_error":
            said = str(context.get("error"))
        elif kind == "string_too_long":
            said = f"is longer than {context['max_length']:,} characters"
        elif kind == "too_long":
            said = f"has more than {context['max_length']:,} entries"
        elif kind == "too_short":
            said = "is empty"
        found.append({"field": _place(error["loc"]), "problem": said or error["msg"]})
    return found


def _place(place: Sequence[str | int]) -> str:
    """Return ("body", "products", 0, "title") as "products[0].title"."""
    named = ""
    for part in place[1:] if place and place[0] == "body" else place:
        if part == "str" or {"[", "-"} & set(str(part)):  # pydantic's name of one type of several
            continue
        named += f"[{part}]" if isinstance(part, int) else f".{part}" if named else str(part)
    return named[:200].encode("utf-8", "replace").decode() or "body"
