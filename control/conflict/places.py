"""The countries, cities and languages that a text names."""

from functools import cache, lru_cache

from foundation.text import normalise

LONGEST_NAME = 4  # words of a country or a city


@lru_cache(maxsize=4096)
def entity(name: str) -> tuple[str, ...]:
    """The countries, cities and languages of a name, each city with its country behind it."""
    from babel.core import get_global

    from control.forgetting.aliases import entities

    for each in entities(name):
        kind, _, code = each.partition(" ")
        if kind == "language" or (kind == "territory" and code.isalpha()):  # no "World"
            return (each,)
        if kind == "city":
            return (each, f"territory {get_global('zone_territories')[code]}")
    return ()


def divided(name: str) -> frozenset[str]:
    """The countries, mostly one, of which a state, province or the like has this name (ISO 3166-2).

    None where it is a country or a city itself: "Luxembourg", which is a province of Belgium, too.
    """
    known = entity(normalise(name))[:1]
    placed = any(each.startswith(("territory", "city")) for each in known)
    return frozenset() if placed else _divisions().get(name, frozenset())


@cache
def _divisions() -> dict[str, frozenset[str]]:
    """The countries by the names of what they are divided into."""
    import pycountry

    found: dict[str, set[str]] = {}
    for each in pycountry.subdivisions:
        found.setdefault(each.name, set()).add(f"territory {each.country_code}")
    return {name: frozenset(countries) for name, countries in found.items()}
