"""A second domain, made by a small generator: adverts of flats to rent in a town that is invented.

Stand-in data, to try a project on. What it shares with real tables: another shape than products,
a decimal comma, the same flat listed twice, rents that are missing or absurd, prose that repeats
the facts or leaves them out, and a rent in which things work together (a square metre is dearer
in one district than in another, a lift is worth something upstairs only).
"""

from __future__ import annotations

import csv
import io
import math
import random
from typing import Any

DISTRICTS = {
    "Old Harbour": 1.55, "Castle Hill": 1.42, "University": 1.2, "Mill Quarter": 1.08,
    "North Gate": 0.97, "Riverside": 1.12, "Eastfields": 0.83, "Foundry Row": 0.76,
    "Lindenau": 0.9, "Airport Road": 0.68,
}  # fmt: skip
"""District -> how dear a square metre is there, as a factor."""

CONDITIONS = {
    "needs work": 0.82, "used": 0.94, "well kept": 1.0, "renovated": 1.1, "first occupancy": 1.22,
}  # fmt: skip
EXTRAS = {
    "balcony": 38, "fitted kitchen": 55, "cellar": 12, "parking space": 70, "garden": 85,
    "bathtub": 10, "underfloor heating": 45, "storage room": 14, "bicycle room": 5,
}  # fmt: skip
"""Extra -> what it adds to the rent, EUR a month."""

_OPENINGS = (
    "We let {this} from {month}.", "Available from {month}: {this}.", "To let, {this}.",
    "{this}, free from {month} for at least two years.", "Are you looking for {this}?",
    "After {years} years the tenants are moving out of {this}.",
    "For sale no, for rent yes: {this}.",
)  # fmt: skip
_PLACES = (
    "The {stop} stop is {walk} minutes away.",
    "{walk} minutes on foot to {stop}.",
    "Shops and a school are around the corner, {stop} is {walk} minutes away.",
    "From the windows you look at {view}.",
    "The street is quiet and ends at {stop}.",
    "The house stands between {stop} and {view}.",
)
_STOPS = (
    "Market Square", "Mint Street", "Opera", "Botanical Garden", "Central Station", "Kings Bridge",
    "Hospital", "Stadium", "Tannery Lane", "Weir", "Old Cemetery", "Observatory", "Gasworks",
)  # fmt: skip
_VIEWS = (
    "an inner courtyard with chestnut trees",
    "the river",
    "the railway yard",
    "a small park",
    "a brick church",
    "the ring road",
    "allotment gardens",
    "the roofs of the old town",
)
_REMARKS = (
    "Pets are a matter of agreement.",
    "Please write a few lines about yourself.",
    "No agents, please.",
    "Viewings on Saturday mornings only.",
    "Smokers are asked not to apply.",
    "The deposit is three months.",
    "Heating is by district heat.",
    "The windows are new.",
    "Floors are oak, and were sanded last year.",
    "There is a waiting list for the garage.",
    "Neighbours are families and two students.",
    "The bathroom has a window.",
    "A washing machine can stay.",
    "The landlord lives in the house.",
    "Internet by fibre.",
    "The staircase was painted this spring.",
    "Only for one or two persons.",
)
_MONTHS = "January February March April May June July August September October November December"
COLUMNS = (
    "advert_no", "headline", "advert_text", "district", "living_area", "rooms", "floor",
    "year_built", "condition", "equipment", "building", "viewings", "rent_eur",
)  # fmt: skip


def rents(count: int = 3000, seed: int = 42) -> list[dict[str, str]]:
    """Return ``count`` adverts, column -> text, as somebody in Europe would export them.

    About 4 % have no rent, 1 % an absurd one, 3 % are listed again under another number, and 2 %
    are exported twice.
    """
    draw = random.Random(seed)
    houses = [_house(draw, number) for number in range(1, max(count // 4, 2) + 1)]
    rows: list[dict[str, str]] = []
    while len(rows) < count:
        kind = draw.random()
        if rows and kind < 0.02:
            rows.append(dict(draw.choice(rows)))
        elif rows and kind < 0.05:
            again = dict(draw.choice(rows)) | {"advert_no": f"W{len(rows) + 100_000}"}
            rows.append(again | {"advert_text": f"{again['advert_text']} {draw.choice(_REMARKS)}"})
        else:
            rows.append(_advert(draw, draw.choice(houses), len(rows)))
    return rows


def to_csv(rows: list[dict[str, str]]) -> str:
    """Return the adverts as the text of a CSV file, with semicolons."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, delimiter=";", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def monthly_rent(flat: dict[str, Any], noise: float = 0.0) -> float:
    """Return what a flat costs, EUR a month: the rule that a model is to find out.

    ``noise`` is on the log scale.
    """
    area, floor = flat["area"], flat["floor"]
    metre = 11.5 * DISTRICTS[flat["district"]] * (1 + 6 / area)  # small flats cost more a metre
    metre *= CONDITIONS[flat["condition"]] * (1.06 if flat["year"] < 1920 else 1.0)
    metre *= 1 + max(flat["year"] - 1990, 0) / 350
    rent = metre * area + sum(EXTRAS[extra] for extra in flat["extras"])
    rent *= 0.94 if floor == 0 else 1.0
    if floor >= 3:
        rent *= 1.05 if flat["lift"] else 0.9
    return rent * math.exp(noise)


def _house(draw: random.Random, number: int) -> dict[str, Any]:
    district = draw.choice(list(DISTRICTS))
    old = DISTRICTS[district] > 1.1 and draw.random() < 0.6
    year = draw.randint(1880, 1930) if old else draw.randint(1950, 2024)
    return {
        "building": f"B{number:04d}", "district": district, "year": year,
        "lift": draw.random() < (0.25 if old else 0.6), "top": draw.randint(2, 6),
        "stop": draw.choice(_STOPS), "view": draw.choice(_VIEWS),
    }  # fmt: skip


def _advert(draw: random.Random, house: dict[str, Any], number: int) -> dict[str, str]:
    rooms = draw.choice((1, 1.5, 2, 2, 2.5, 3, 3, 3, 4, 5))
    flat = house | {
        "rooms": rooms, "area": round(14 + rooms * draw.uniform(17, 27), 1),
        "floor": draw.randint(0, house["top"]), "condition": draw.choice(list(CONDITIONS)),
        "extras": draw.sample(list(EXTRAS), draw.randint(0, 5)),
    }  # fmt: skip
    rent = monthly_rent(flat, draw.gauss(0, 0.07))
    kind = draw.random()
    told = "" if kind < 0.04 else "1,00" if kind < 0.045 else "999.999,00" if kind < 0.05 else None
    here = draw.random() < 0.92  # some leave the facts to the prose
    return {
        "advert_no": f"W{number + 10_000}",
        "headline": _headline(draw, flat),
        "advert_text": _text(draw, flat),
        "district": flat["district"],
        "living_area": _comma(flat["area"], 1),
        "rooms": _comma(rooms, 1) if rooms % 1 else str(int(rooms)),
        "floor": str(flat["floor"]) if here else "",
        "year_built": str(flat["year"]) if here else "",
        "condition": flat["condition"],
        "equipment": "; ".join(flat["extras"] + ["lift"] * flat["lift"]),
        "building": flat["building"],
        "viewings": str(draw.randint(0, 40)),
        "rent_eur": _comma(rent, 2) if told is None else told,
    }


def _headline(draw: random.Random, flat: dict[str, Any]) -> str:
    word = draw.choice(("Flat", "Apartment", "Home", "Rooms with a view", "Nice flat"))
    rooms = f"{flat['rooms']:g} rooms"
    form = draw.choice(
        ("{word} in {district}, {rooms}", "{district}: {rooms}, {area} m²",
         "{rooms} on {area} m² in {district}", "{word}, {area} m², {district}")
    )  # fmt: skip
    return form.format(word=word, rooms=rooms, area=round(flat["area"]), district=flat["district"])


def _text(draw: random.Random, flat: dict[str, Any]) -> str:
    months = _MONTHS.split()
    said = {
        "month": draw.choice(months), "years": draw.randint(2, 30), "walk": draw.randint(2, 18),
        "stop": flat["stop"] if draw.random() < 0.5 else draw.choice(_STOPS), "view": flat["view"],
        "this": f"a {flat['condition']} flat of {flat['area']:g} m² in {flat['district']}",
    }  # fmt: skip
    floor = ("on the ground floor", "one floor up")[flat["floor"]] if flat["floor"] < 2 else (
        f"on floor {flat['floor']} of {flat['top']}"
    )  # fmt: skip
    parts = [draw.choice(_OPENINGS), draw.choice(_PLACES), f"It lies {floor}"]
    parts[-1] += ", with a lift." if flat["lift"] else "."
    if flat["extras"]:
        parts.append(f"It comes with {', '.join(flat['extras'])}.")
    parts += [*draw.sample(_REMARKS, draw.randint(1, 4)), draw.choice(_PLACES)]
    draw.shuffle(parts)
    return " ".join(parts).format(**said)


def _comma(value: float, places: int) -> str:
    """Write a number with a decimal comma and points between thousands."""
    return f"{value:,.{places}f}".translate(str.maketrans(",.", ".,"))
