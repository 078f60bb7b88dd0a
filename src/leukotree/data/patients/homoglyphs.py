"""Letters that are drawn like Latin letters or digits: what remains of Unicode's list of confusables after
compatibility forms.

Source: Unicode Technical Standard 39, confusables.txt, the letters of living scripts and small capitals.
"""

from __future__ import annotations

_OF_CAPITALS = {
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
_OF_SMALL = {
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
_OF_OTHERS = {"0": "〇", "3": "З", "4": "Ꮞ", "6": "б", "-": "ー一ㅡ"}

LETTERS = str.maketrans(
    {
        glyph: plain
        for table in (_OF_CAPITALS, _OF_SMALL, _OF_OTHERS)
        for plain, glyphs in table.items()
        for glyph in glyphs
    }
)
"""For `str.translate`: a letter of another script, or with a stroke, -> the Latin letter or digit that it is
drawn like."""

READINGS = str.maketrans({"O": "0", "l": "1", "I": "1", "|": "1", "m": "rn"})
"""The same within ASCII: what one reads for another in many typefaces."""
