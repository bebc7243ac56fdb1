"""French."""

from __future__ import annotations

from coefvq.simulation.synthetic.factors import Claim, Sticker, Topic
from coefvq.simulation.synthetic.phrases.book import Phrases

PHRASES = Phrases(
    days=("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"),
    moods=(),
    topic={
        Topic.COOK: (
            "recette facile pour le dîner",
            "le secret d'une bonne sauce",
            "ce {day}, je cuisine avec {name}",
            "prêt en {n} minutes, promis",
            "couper des oignons sans pleurer",
            "le gâteau de ma grand-mère",
        ),
        Topic.SPORT: (
            "échauffement avant le tournoi",
            "entraînement du {day} avec le club",
            "round {n} de notre championnat",
            "{name} prépare la finale",
            "le coach remontre le geste",
            "série {n}, je ne sens plus mes bras",
        ),
        Topic.FILM: (
            "répétition de la pièce avant la première",
            "tournage de la scène {n}",
            "dans les coulisses de notre court-métrage",
            "{name} joue le méchant",
            "on règle la cascade, prise {n}",
            "chorégraphie de combat pour le film",
        ),
        Topic.DARE: (
            "cap ou pas cap, défi {n}",
            "{name} m'a mis au défi",
            "pari perdu, j'assume",
            "personne ne pensait que j'oserais",
            "le défi dont tout le monde parle",
            "on piège {name}, regardez comment ça finit",
        ),
        Topic.THREAT: (
            "tu vas le payer, {name}",
            "ça ne va pas en rester là",
            "dernier avertissement avant {day}",
            "on sait où te trouver",
            "répète ça devant moi",
            "tu vas le regretter",
        ),
        Topic.VAGUE: (
            "on en parle ou pas",
            "sans commentaire",
            "mon {day} en une vidéo",
            "{name}, regarde ça",
            "je n'ai pas les mots",
            "ça arrive",
        ),
    },
    claim={
        Claim.OWN: (
            "filmé par moi, rien d'emprunté",
            "vidéo originale, faite par moi",
            "j'ai tout filmé et monté",
            "il m'a fallu {n} essais pour filmer ça",
            "toutes les images sont à moi",
        ),
        Claim.CREDIT: (
            "vidéo de {name}, tous droits réservés",
            "l'original est sur la page de {name}",
            "merci à la personne qui a filmé",
            "repartagé avec l'accord de {name}",
            "crédit vidéo : {name}",
        ),
        Claim.COMMENTARY: (
            "je décrypte cette vidéo",
            "mon avis sur ce clip",
            "je réagis pour la première fois",
            "j'explique leurs {n} erreurs",
            "je mets pause pour expliquer",
        ),
        Claim.AGGREGATOR: (
            "le meilleur du net, épisode {n}",
            "compilation numéro {n}",
            "le top {n} de la semaine",
            "plus de vidéos sur notre page",
            "abonne-toi pour {n} autres vidéos",
        ),
        Claim.DENIAL: (
            "ce n'est pas moi qui ai filmé",
            "aucune idée de qui a filmé",
            "cette vidéo n'est pas de moi",
            "reçu dans un groupe",
            "je n'ai jamais dit que c'était de moi",
        ),
    },
    sticker={
        Sticker.HYPE: (
            "regarde jusqu'à la fin",
            "attends...",
            "tu ne vas pas y croire",
            "monte le son",
        ),
        Sticker.SAFE: (
            "tout est joué, personne n'est blessé",
            "ce sont des acteurs, tout est faux",
            "ne faites pas ça chez vous",
            "tout a été répété",
        ),
        Sticker.UNSAFE: (
            "rien n'est joué, il y a un blessé",
            "ce ne sont pas des acteurs",
            "faites ça chez vous",
            "rien n'a été répété",
        ),
    },
)
