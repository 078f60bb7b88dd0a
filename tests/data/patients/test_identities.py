"""Ids of patients: pairs that are equal by rules of Unicode or spreadsheets are joined or named."""

import sys
import unicodedata

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.data.audit.audit import audit
from leukotree.data.pack import pack
from leukotree.data.patients import doubts, identities
from leukotree.data.sources.importer import import_source
from tests.helpers.patients import cohort, named, picture

LETTERS = [
    one
    for one in map(chr, range(0x20, sys.maxunicode + 1))
    if unicodedata.category(one) not in ("Cc", "Cs", "Cn", "Co")
]


def of_category(name):
    return [letter for letter in LETTERS if unicodedata.category(letter) == name]


# --- pairs that are equal by rules of Unicode and spreadsheets; `n` makes the ids of each pair unique

CYRILLIC = dict(zip("ABCEHIJKMOPSTXYacehijopsxy", "АВСЕНІЈКМОРЅТХУасеһіјорѕху", strict=True))
GREEK = dict(zip("ABEZHIKMNOPTYXov", "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧον", strict=True))


def joined_by_unicode(n):
    """Yield pairs that are equal after normalisation, or except for invisible characters and spaces."""
    composed = f"Mü{n}ñez"
    yield composed, unicodedata.normalize("NFD", composed)
    yield f"Ⓚ\u212b{n}", f"Ⓚ\u00c5{n}"  # the Angstrom sign
    for hidden in "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u2066\u061c\u034f\ufe0f":
        yield f"v{ord(hidden)}x{n}", f"v{ord(hidden)}{hidden}x{n}"
    yield f"\ufeffbom{n}", f"bom{n}"
    for space in of_category("Zs"):
        if space != " ":
            yield f"s{ord(space)} y{n}", f"s{ord(space)}{space}y{n}"
        yield f"e{ord(space)}y{n}", f"e{ord(space)}y{n}{space}"
    yield f"two spaces{n}", f"two  spaces{n}"


def alike_by_unicode(n):
    yield f"Case{n}", f"cASE{n}"
    yield f"Straße{n}", f"STRASSE{n}"
    yield f"Müller{n}", f"MUELLER{n}"
    yield f"Ångström{n}", f"Aangstroem{n}"
    yield f"Sørensen{n}", f"Soerensen{n}"
    yield f"ısı{n}", f"isi{n}"
    yield f"İz{n}", f"iz{n}"
    yield f"ὈΔΥΣΣΕΎΣ{n}", f"ὀδυσσεύς{n}"
    yield f"Ｗ{n}", f"W{n}"
    yield f"Q{n}", "Q" + "".join(chr(ord("０") + int(digit)) for digit in str(n))
    yield f"sup{n}²", f"sup{n}2"
    yield f"ﬁbre{n}", f"fibre{n}"
    yield f"rom{n}-Ⅻ", f"rom{n}-XII"
    yield f"No{n}x", f"№{n}x"
    yield f"①u{n}", f"1u{n}"
    yield f"𝐏bold{n}", f"Pbold{n}"
    yield f"accént{n}", f"accent{n}"
    yield f"Łuk{n}", f"Luk{n}"
    for zero in ("٠", "۰", "०", "๐", "𝟎"):
        yield f"d{ord(zero)}-{n}", f"d{ord(zero)}-" + "".join(chr(ord(zero) + int(digit)) for digit in str(n))
    for dash in [*of_category("Pd"), "\u2212", "_", " ", ".", "\u00b7"]:
        if dash != "-":
            yield f"h{ord(dash)}x-y{n}", f"h{ord(dash)}x{dash}y{n}"
            yield f"k{ord(dash)}-{n}", f"k{ord(dash)}{dash}{n}"
    for quote in "'’‘ʼ´`′":
        yield f"O{quote}N{ord(quote)}x{n}", f"ON{ord(quote)}x{n}"
    for plain, other in [*CYRILLIC.items(), *GREEK.items()]:
        yield f"z{ord(other)}{plain}{n}", f"z{ord(other)}{other}{n}"
    yield f"g-{n}", f"g{n}"
    yield f"PO{n}0", f"P0{n}0"
    yield f"wl{n}l", f"wl{n}1"


def alike_in_spreadsheets(n):
    """Yield an id and the text that a spreadsheet may write for it. `n` is from 1000 to 9999."""
    yield f"00{n}1", f"{n}1"
    yield f"{n}2", f"{n}2.0"
    yield f"{n}3.0", f"{n}3.00"
    yield f"{n}.50", f"{n}.5"
    yield f"{n}4", f"{n}4,0"
    yield f"{n}e3", f"{n}000"
    yield f"{n}E+4", f"{n}0000"
    yield f"1,{n % 1000:03d},{n % 1000:03d}", f"1{n % 1000:03d}{n % 1000:03d}"
    yield f"2.{n % 1000:03d}.{n % 1000:03d}", f"2{n % 1000:03d}{n % 1000:03d}"
    yield f"3 {n % 1000:03d} {n % 1000:03d}", f"3{n % 1000:03d}{n % 1000:03d}"
    yield f"4'{n % 1000:03d}'{n % 1000:03d}", f"4{n % 1000:03d}{n % 1000:03d}"
    yield f"'00{n}5", f"00{n}5"
    yield f'="00{n}6"', f"00{n}6"
    yield f"+{n}7", f"{n}7"
    yield f"({n}8)", f"{n}8"
    yield f"pat{n:06d}", f"pat{n}"
    yield f"71{n}67890123456", f"{float(f'71{n}67890123456'):.5E}"
    yield f"82{n}7890123456", f"{float(f'82{n}7890123456'):.14E}"
    yield f"93{n}78901234567", (f"93{n}78901234567"[:15]).ljust(17, "0")


DATES = [
    ("1-2", "2-Jan"),
    ("3/4", "4-Mar"),
    ("5/6", "5-Jun"),
    ("MAR1", "1-Mar"),
    ("SEPT2", "2-Sep"),
    ("OCT4", "Oct-04"),
    ("DEC10", "10-Dec"),
    ("8-45", "Aug-45"),
    ("1-3-5", "1/3/2005"),
    ("2024-01-09", "1/9/2024"),
    ("2024-02-08", "08.02.2024"),
    ("2023-05-06", "6-May-23"),
    ("2022-11-12", "2022-11-12 00:00:00"),
]

PAIRS = [
    *(pair for make in (joined_by_unicode, alike_by_unicode, alike_in_spreadsheets) for pair in make(4271)),
    *DATES,
]


def test_the_list_holds_pairs_that_differ_and_ids_that_stand_in_one_pair():
    ids = [text for pair in PAIRS for text in pair]
    assert len(ids) == len(set(ids))


def spelt(text):
    """Return the spelling of an id in the index, by Unicode's categories and not by the code under test."""
    drawn = "".join(
        letter for letter in text if unicodedata.category(letter) != "Cf" and letter not in "\u034f\ufe0f"
    )
    spaced = "".join(" " if unicodedata.category(letter) == "Zs" else letter for letter in drawn)
    return unicodedata.normalize("NFC", " ".join(filter(None, spaced.split(" "))))


def missed(pairs, doubts):
    """Return the pairs that are neither one id nor named together."""
    groups = named(doubts)
    wanted = [{spelt(text) for text in pair} for pair in pairs]
    return [pair for pair in wanted if len(pair) > 1 and not any(pair <= group for group in groups)]


def test_each_pair_is_joined_or_named_at_import_pack_and_audit(tmp_path):
    pairs = [pair for pair in PAIRS if "/" not in "".join(pair)]
    root = cohort(tmp_path / "raw", [text for pair in pairs for text in pair])
    imported = import_source("folder", root, root / "m.csv")
    assert missed(pairs, imported.doubts) == []
    table = pd.read_csv(root / "m.csv", dtype=str, keep_default_na=False)
    assert set(table["patient"]) == {spelt(text) for pair in pairs for text in pair}
    others = [text for pair in PAIRS if pair not in pairs for text in pair]  # no names of folders
    for number, text in enumerate(others):
        picture(root / "more" / f"{number}.bmp", 10_000 + number)
        table.loc[len(table)] = {
            "image": f"more/{number}.bmp",
            "leaf": "AML",
            "patient": text,
            "source": "raw",
            "group": "patient",
        }
    table.to_csv(root / "m.csv", index=False)
    packed = pack(root / "m.csv", tmp_path / "shards", folds=2, size=8, workers=1)
    assert missed(PAIRS, packed.doubts) == []
    assert set(packed.dataset.index["patient"]) == {spelt(text) for pair in PAIRS for text in pair}
    audited = audit(tmp_path / "shards")
    assert missed(PAIRS, audited.doubts) == []
    assert audited.ok
    for lines in (imported.lines(), packed.lines(), audited.lines()):
        assert any(
            line.startswith("warning: ") and "group(s) of patient ids look alike" in line for line in lines
        )


@pytest.mark.parametrize("across", [False, True])
def test_join_makes_one_patient_of_each_pair(tmp_path, across):
    root = cohort(tmp_path / "raw", [text for pair in PAIRS for text in pair if "/" not in "".join(pair)])
    import_source("folder", root, root / "m.csv")
    told = []
    packed = pack(
        root / "m.csv",
        tmp_path / "shards",
        folds=2,
        size=8,
        workers=1,
        similar_ids="join",
        patients_across_sources=across,
        tell=told.append,
    )
    ids = packed.dataset.index["patient"]
    whole = {frozenset(map(spelt, pair)) for pair in PAIRS if "/" not in "".join(pair)}
    assert all(len(pair & set(ids)) <= 1 for pair in whole)
    assert packed.dataset.description.patients == ids.nunique() <= len(whole)
    assert packed.dataset.index["group"].nunique() == ids.nunique()
    assert packed.dataset.description.model_extra["options"]["similar_ids"] == "join"
    assert not any("look alike: " in line for line in told)
    assert not named(audit(tmp_path / "shards").doubts)


DIFFERENT = [
    ("1-12", "11-2"),
    ("P12", "P1-2"),
    ("1-2", "2-1"),
    ("1", "10"),
    ("A1", "B1"),
    ("ab", "a-b"),
    ("00e1", "00e2"),
    ("か", "が"),
    ("कि", "की"),
    ("*x", "*y"),
    ("1.5", "15"),
    ("HO12", "H12"),
    ("😀1", "😃1"),
    ("1e3", "1e4"),
    ("3-4", "4-3"),
    ("MAR1", "MAR2"),
    ("123000000001", "123000000002"),
    ("1234567890123456", "1234567890123457"),
    ("2024-01-02", "2024-02-01"),
    ("张1", "章1"),
    ("patient_1", "patient_11"),
    ("100", "1000"),
    ("0", "00e5"),
    ("٣", "٤"),
]


@pytest.mark.parametrize("pair", DIFFERENT, ids="|".join)
def test_different_ids_are_left_alone(pair):
    assert similar(pair) == []


def similar(texts):
    frame = pd.DataFrame({"patient": list(texts), "source": "x", "leaf": "AML"})
    return doubts.similar(frame)


def test_ids_numbered_in_one_way_raise_no_doubt():
    kinds = [
        "{}",
        "{:04d}",
        "P{}",
        "P-{:03d}",
        "AML_{}",
        "{}-1",
        "2024-{}",
        "s{}a",
        "UID_{}",
        "{}e",
        "10000000{:04d}",
        "x.{}",
    ]
    for kind in kinds:
        assert similar([kind.format(n) for n in range(1, 400)]) == [], kind
    assert similar([f"{site}-{n}" for site in range(1, 30) for n in range(1, 30)]) == []


# --- all of Unicode


def together(one, other):
    return identities.normal(one) == identities.normal(other) or bool(
        similar([identities.normal(one), identities.normal(other)])
    )


def apart(pairs):
    return [f"{one!r} {other!r}" for one, other in pairs if one != other and not together(one, other)]


@pytest.mark.slow("all letters of Unicode")
def test_every_compatible_form_of_a_latin_letter_or_digit():
    plain = {letter: unicodedata.normalize("NFKC", letter) for letter in LETTERS}
    assert (
        apart((f"x{one}7", f"x{text}7") for one, text in plain.items() if text.isascii() and text.isalnum())
        == []
    )


@pytest.mark.slow("all letters of Unicode")
def test_every_letter_in_both_cases():
    cased = [letter for letter in LETTERS if letter.upper() != letter.lower()]
    assert len(cased) > 2000
    assert apart((f"x{one.upper()}7", f"x{one.lower()}7") for one in cased) == []


@pytest.mark.slow("tries many texts")
def test_every_decimal_digit():
    assert apart((f"P{one}5", f"P{unicodedata.decimal(one)}5") for one in of_category("Nd")) == []


def test_every_format_character_space_and_dash():
    for one in of_category("Cf"):
        assert identities.normal(f"P{one}1") == "P1"
    for one in of_category("Zs"):
        assert identities.normal(f"P{one}1{one}") == "P 1"
    assert apart((f"P{one}1", "P-1") for one in of_category("Pd")) == []
    assert apart((f"1{one}2", "1-2") for one in of_category("Pd")) == []


TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_the_normal_spelling_is_one(text):
    once = identities.normal(text)
    assert identities.normal(once) == once
    assert unicodedata.is_normalized("NFC", once)
    for form in ("NFC", "NFD"):
        assert identities.normal(unicodedata.normalize(form, text)) == once


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_cases_and_widths_of_any_text_are_together(text):
    for other in (text.casefold(), unicodedata.normalize("NFKC", text)):
        one, two = identities.normal(text), identities.normal(other)
        if one and two:
            assert together(one, two)
