"""Letters that look like Latin letters or digits.

Source: Unicode Technical Standard 39, confusables.txt: the letters of living scripts and small capitals,
without those that compatibility normalisation (NFKD) already replaces.
"""

from __future__ import annotations

_CAPITALS = {
    "A": "АΑᎪⲀꓮ",
    "B": "ВΒᏴⲂꓐ",
    "C": "СϹᏟⲤꓚ",
    "D": "ĐÐᎠꓓ",
    "E": "ЕΕᎬꓰ",
    "F": "Ϝꓝ",
    "G": "ԌᏀꓖ",
    "H": "НΗᎻⲎꓧĦ",
    "I": "ІΙӀⲒꓲ",
    "J": "ЈͿᎫꓙ",
    "K": "КΚᏦⲔꓗ",
    "L": "ŁᏞԼꓡ",
    "M": "МΜᎷⲘꓟ",
    "N": "ΝⲚꓠ",
    "O": "ОΟØՕⲞꓳ",
    "P": "РΡᏢⲢꓑ",
    "Q": "Ԛ",
    "R": "ᎡᏒꓣ",
    "S": "ЅՏᏚꓢ",
    "T": "ТΤᎢⲦꓔŦ",
    "U": "Սꓴ",
    "V": "ѴᏙꓦ",
    "W": "ԜᎳꓪ",
    "X": "ХΧⲬꓫ",
    "Y": "УΥҮᎩⲨꓬ",
    "Z": "ΖᏃꓜƵ",
    "AE": "ÆӔ",
    "OE": "Œ",
}
_SMALL = {
    "a": "аαɑᴀ",
    "b": "вβьʙ",
    "c": "сϲᴄ",
    "d": "ԁđðᴅ",
    "e": "еεᴇ",
    "f": "ƒꜰϝ",
    "g": "ɡցɢԍ",
    "h": "һнհħʜ",
    "i": "іιıɩɪӏ",
    "j": "јϳȷյᴊ",
    "k": "кκĸᴋ",
    "l": "łʟ",
    "m": "мᴍ",
    "n": "ηոɴп",
    "o": "оοσøօᴏ",
    "p": "рρᴘ",
    "q": "ԛզ",
    "r": "гʀ",
    "s": "ѕꜱ",
    "t": "тτŧᴛ",
    "u": "υսμᴜ",
    "v": "νѵᴠ",
    "w": "ωԝᴡ",
    "x": "хχ",
    "y": "уүγʏ",
    "z": "ƶᴢ",
    "ae": "æӕ",
    "oe": "œ",
}
_OTHERS = {"0": "〇", "3": "З", "4": "Ꮞ", "6": "б", "-": "ー一ㅡ"}

LETTERS = str.maketrans(
    {
        glyph: plain
        for table in (_CAPITALS, _SMALL, _OTHERS)
        for plain, glyphs in table.items()
        for glyph in glyphs
    }
)
"""For `str.translate`: a letter of another script, or with a stroke -> the Latin letter or digit like it."""

READINGS = str.maketrans({"O": "0", "l": "1", "I": "1", "|": "1", "m": "rn"})
"""The same within ASCII: letters that look like others in many typefaces."""
