"""What people write: titles that show a topic and a claim of origin, and short on-screen stickers.

Many phrasings per meaning, some not in English, and pairs that share their words but not their meaning
("nobody got hurt" / "somebody got hurt"), so that spotting single words is not enough. Stickers are
plain ASCII because the picture is drawn with a font that has no accents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from coefvq.data.synthetic.factors import Claim, Sticker, Topic

TOPIC_PHRASES: Mapping[Topic, tuple[str, ...]] = {
    Topic.COOK: (
        "making soup the way {name} taught me",
        "{mood} pasta sauce in {n} minutes",
        "slicing onions without tears",
        "pan is hot, dinner is nearly done",
        "learning to flambe at home, {mood} result",
        "{day} lunch for the whole table",
        "how restaurants get that crust",
        "tasting what {name} has on the stove",
        "la receta de mi abuela para el {n} de mayo",
        "heute koche ich Gulasch mit {name}",
        "recette facile pour le dîner",
        "bolo de cenoura da {name}, passo a passo",
    ),
    Topic.SPORT: (
        "{day} practice with the club",
        "round {n} of our sparring league",
        "{name} trains for the regional finals",
        "a {mood} match from start to finish",
        "drills that fixed my footwork",
        "warming up before the tournament",
        "our coach shows the move again",
        "set {n} of {n} and my arms are gone",
        "entrenamiento del {n} con el equipo",
        "Training vor dem großen Turnier",
        "échauffement avant le combat amical",
        "treino {mood} na academia hoje",
    ),
    Topic.FILM: (
        "on set with the stunt crew, take {n}",
        "we rehearse this fight all week",
        "scene {n} of our student film",
        "{name} plays the villain in act two",
        "the props department did {mood} work",
        "behind the camera of our short movie",
        "choreography for the theatre finale",
        "cut, print, {mood} take everyone",
        "rodaje de la escena {n}, puro teatro",
        "Dreharbeiten mit {name}, Klappe {n}",
        "répétition de la pièce avant la première",
        "bastidores do nosso curta-metragem",
    ),
    Topic.DARE: (
        "{name} dared me and I never back out",
        "challenge number {n}, who is next",
        "they bet {n} bucks I would chicken out",
        "doing whatever the comments tell me",
        "prank on {name}, {mood} ending",
        "nobody thought I would go through with it",
        "trying the trend everybody warns about",
        "lost a bet with {name}, this is the price",
        "a que no te atreves, reto {n}",
        "Mutprobe mit {name}, traust du dich",
        "cap ou pas cap, défi {n}",
        "desafio aceito, agora é a vez de {name}",
    ),
    Topic.THREAT: (
        "{name} knows what is coming",
        "this ends on {day}, one way or another",
        "you touched my family, now you answer for it",
        "I told {name} what would happen",
        "payback for what they did",
        "say that again and see where it gets you",
        "{n} of us are looking for you",
        "last warning before it gets ugly",
        "te vas a arrepentir, {name}",
        "wir kriegen dich noch, {name}",
        "tu vas le payer, {name}",
        "isso não vai ficar assim, {name}",
    ),
    Topic.VAGUE: (
        "well, that was {mood}",
        "my {day} in a nutshell",
        "no words for this one",
        "{name}, look at this",
        "still thinking about it",
        "so this happened on {day}",
        "what would you call it",
        "a {mood} little moment",
        "sin comentarios",
        "mal wieder typisch {day}",
        "on en parle ou pas",
        "coisas que acontecem",
    ),
}

CLAIM_PHRASES: Mapping[Claim, tuple[str, ...]] = {
    Claim.OWN: (
        "recorded by me this {day}",
        "I held the camera for all of it",
        "my own footage from start to end",
        "shot and cut by myself",
        "original upload, made by me",
        "took me {n} tries to film this",
        "first time I post something I filmed",
        "grabado por mí con el móvil",
        "selbst gefilmt und geschnitten",
        "filmé par moi, rien d'emprunté",
        "gravei tudo sozinho",
    ),
    Claim.CREDIT: (
        "all credit goes to {name}",
        "reposted from {name} with respect",
        "original is on the page of {name}",
        "rights stay with the owner",
        "found it on {name}, go and follow",
        "borrowed from another app, thanks {name}",
        "the camera work is by {name}",
        "créditos a quien lo grabó",
        "Quelle: Kanal von {name}",
        "vidéo de {name}, tous droits réservés",
        "créditos para {name}",
    ),
    Claim.COMMENTARY: (
        "what I think about this clip",
        "I stop it {n} times to explain",
        "reacting to it for the first time",
        "{n} mistakes they make here, explained",
        "a doctor looks at this video",
        "my review, second by second",
        "duet with my two cents",
        "analizo lo que pasa aquí",
        "meine Meinung zu dem Clip",
        "je décrypte cette vidéo",
        "comentando cada detalhe",
    ),
    Claim.AGGREGATOR: (
        "compilation no. {n}",
        "the top {n} of the week",
        "part {n}, the rest is on our page",
        "new clips every {n} minutes",
        "we collect the best of the internet",
        "follow the page for {n} more",
        "daily dose of videos, volume {n}",
        "los mejores {n} del día",
        "die {n} besten der Woche",
        "le meilleur du net, épisode {n}",
        "os {n} melhores da semana",
    ),
    Claim.DENIAL: (
        "not recorded by me",
        "I did not hold the camera here",
        "this is not my own footage",
        "never said that I filmed this",
        "no clue who shot and cut it",
        "it reached me through a group chat",
        "wish it were mine, it is not",
        "no lo grabé yo, me lo pasaron",
        "nicht selbst gefilmt, nur weitergeleitet",
        "ce n'est pas moi qui ai filmé",
        "não fui eu que gravei",
    ),
    Claim.NONE: ("",),
}

STICKER_PHRASES: Mapping[Sticker, tuple[str, ...]] = {
    Sticker.HYPE: (
        "WAIT FOR IT",
        "keep watching",
        "the end is wild",
        "sound on!",
        "OMG look",
        "3, 2, 1, go",
        "you won't believe this",
        "watch it twice",
        "mira hasta el final",
        "bis zum Ende schauen",
        "regarde la fin",
        "olha isso",
    ),
    Sticker.SAFE: (
        "it is staged, nobody got hurt",
        "rubber props, trained actors",
        "do not copy this at home",
        "an instructor is watching",
        "this was rehearsed",
        "professionals, with a permit",
        "fake blood, real actors",
        "nadie se hizo nada, es teatro",
        "alles nur gespielt",
        "tout est faux, c'est un jeu",
        "tudo encenado, sem risco",
    ),
    Sticker.UNSAFE: (
        "not staged, somebody got hurt",
        "no props, no actors",
        "copy this at home",
        "no instructor is watching",
        "this was not rehearsed",
        "not professionals, no permit",
        "real blood, not fake",
        "alguien se hizo mal, no es teatro",
        "nichts davon ist gespielt",
        "rien n'est faux, pas un jeu",
        "nada encenado, risco real",
    ),
}

_NAMES = ("Alex", "Noor", "Kim", "Rosa", "Bruno", "Mika", "Dana", "Leo", "Ines", "Sam")
_MOODS = ("great", "strange", "calm", "crazy", "simple", "perfect", "funny", "rough", "smooth", "honest")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SEPARATORS = (". ", " | ", " - ", ", ", " ... ")
_HASHTAGS = ("", "", "#fyp", "#video", "#trending", "#clip", "#daily", "#foryou")


def write_title(rng: np.random.Generator, topic: Topic, claim: Claim) -> str:
    """A title that shows topic and claim in either order, at times with hashtags that mean nothing."""
    parts = [_phrase(rng, TOPIC_PHRASES[topic]), _phrase(rng, CLAIM_PHRASES[claim])]
    if rng.random() < 0.5:
        parts.reverse()
    text = _pick(rng, _SEPARATORS).join(part for part in parts if part)
    words = [text[0].upper() + text[1:] if rng.random() < 0.5 else text]
    return " ".join(words + [tag for tag in (_pick(rng, _HASHTAGS), _pick(rng, _HASHTAGS)) if tag])


def write_stickers(rng: np.random.Generator, kind: Sticker) -> tuple[str, ...]:
    """On-screen texts of that kind: one, or none for ``Sticker.NONE``."""
    return (_pick(rng, STICKER_PHRASES[kind]),) if kind in STICKER_PHRASES else ()


def _phrase(rng: np.random.Generator, phrases: Sequence[str]) -> str:
    return _pick(rng, phrases).format(
        name=_pick(rng, _NAMES), mood=_pick(rng, _MOODS), day=_pick(rng, _DAYS), n=int(rng.integers(2, 30))
    )


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
