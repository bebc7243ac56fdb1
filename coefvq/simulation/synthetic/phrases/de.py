"""German."""

from __future__ import annotations

from coefvq.simulation.synthetic.factors import Claim, Sticker, Topic
from coefvq.simulation.synthetic.phrases.book import Phrases

PHRASES = Phrases(
    days=("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
    moods=(),
    topic={
        Topic.COOK: (
            "heute koche ich Gulasch mit {name}",
            "Abendessen in {n} Minuten",
            "Zwiebeln schneiden ohne Tränen",
            "Omas Kuchen Schritt für Schritt",
            "so gelingt die Soße immer",
            "am {day} gibt es Pfannkuchen",
        ),
        Topic.SPORT: (
            "Training vor dem großen Turnier",
            "Aufwärmen vor dem Spiel",
            "Runde {n} in unserer Liga",
            "{name} trainiert fürs Finale",
            "der Trainer zeigt den Griff noch mal",
            "Satz {n}, meine Arme sind durch",
        ),
        Topic.FILM: (
            "Dreharbeiten mit {name}, Klappe {n}",
            "hinter den Kulissen von unserem Kurzfilm",
            "Probe der Kampfszene fürs Theater",
            "{name} spielt den Bösewicht",
            "Szene {n} ist im Kasten",
            "Choreografie für die Premiere",
        ),
        Topic.DARE: (
            "Mutprobe mit {name}, traust du dich?",
            "Challenge Nummer {n}, wer ist der Nächste?",
            "Wette verloren, jetzt muss ich ran",
            "{name} meinte, ich traue mich nicht",
            "keiner dachte, dass ich das mache",
            "Streich mit {name}, wartet auf den Schluss",
        ),
        Topic.THREAT: (
            "wir kriegen dich noch, {name}",
            "das wirst du bereuen",
            "letzte Warnung bis {day}",
            "wir wissen, wo du bist",
            "sag mir das noch mal ins Gesicht",
            "das ist noch nicht vorbei, {name}",
        ),
        Topic.VAGUE: (
            "mal wieder typisch {day}",
            "ohne Worte",
            "mein {day} in einem Video",
            "{name}, schau dir das an",
            "was soll man dazu sagen",
            "kommt vor",
        ),
    },
    claim={
        Claim.OWN: (
            "selbst gefilmt und geschnitten",
            "von mir mit dem Handy aufgenommen",
            "eigenes Video, alles von mir",
            "hat mich {n} Anläufe gekostet, das zu filmen",
            "das Material ist komplett von mir",
        ),
        Claim.CREDIT: (
            "Quelle: Kanal von {name}",
            "Original auf der Seite von {name}",
            "mit Erlaubnis von {name} geteilt",
            "danke an den, der das gefilmt hat",
            "alle Rechte bei {name}",
        ),
        Claim.COMMENTARY: (
            "meine Meinung zu dem Clip",
            "ich reagiere zum ersten Mal darauf",
            "ich erkläre die {n} Fehler",
            "Sekunde für Sekunde analysiert",
            "ich halte an und erkläre",
        ),
        Claim.AGGREGATOR: (
            "die {n} besten der Woche",
            "Best-of Nummer {n}",
            "mehr davon auf unserer Seite",
            "das Beste aus dem Netz, Teil {n}",
            "folgt uns für {n} weitere Clips",
        ),
        Claim.DENIAL: (
            "nicht selbst gefilmt, nur weitergeleitet",
            "keine Ahnung, wer das gefilmt hat",
            "das Video ist nicht von mir",
            "kam über eine Gruppe rein",
            "ich habe nie gesagt, dass es meins ist",
        ),
    },
    sticker={
        Sticker.HYPE: (
            "bis zum Ende schauen",
            "wartet ab...",
            "das glaubst du nicht",
            "Ton an!",
        ),
        Sticker.SAFE: (
            "alles gespielt, niemand verletzt",
            "mit Schauspielern und Requisiten",
            "nicht zu Hause nachmachen",
            "alles vorher geprobt",
        ),
        Sticker.UNSAFE: (
            "nicht gespielt, jemand verletzt",
            "ohne Schauspieler und Requisiten",
            "zu Hause nachmachen",
            "nichts davon geprobt",
        ),
    },
)
