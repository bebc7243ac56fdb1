"""What people write, per language: phrases for each topic, claim of origin and sticker.

Each phrase means one level of one factor. Some pairs share their words but not their meaning ("nobody got
hurt" / "somebody got hurt"), so that spotting single words is not enough. Languages are a nuisance: they
say nothing about the labels. All scripts are Latin, as the font of the stickers is.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from coefvq.simulation.synthetic.phrases import de, en, es, fr, id, pt, tr
from coefvq.simulation.synthetic.phrases.book import Phrases

#: phrases by ISO 639-1 code
PHRASES: Mapping[str, Phrases] = MappingProxyType(
    {
        "en": en.PHRASES,
        "es": es.PHRASES,
        "pt": pt.PHRASES,
        "fr": fr.PHRASES,
        "de": de.PHRASES,
        "id": id.PHRASES,
        "tr": tr.PHRASES,
    }
)

#: P(language)
LANGUAGES: Mapping[str, float] = MappingProxyType(
    {"en": 0.46, "es": 0.12, "pt": 0.10, "fr": 0.08, "de": 0.08, "id": 0.08, "tr": 0.08}
)

__all__ = ["LANGUAGES", "PHRASES", "Phrases"]
