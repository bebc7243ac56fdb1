"""Spanish."""

from __future__ import annotations

from coefvq.simulation.synthetic.factors import Claim, Sticker, Topic
from coefvq.simulation.synthetic.phrases.book import Phrases

PHRASES = Phrases(
    days=("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"),
    moods=(),
    topic={
        Topic.COOK: (
            "la receta de mi abuela, paso a paso",
            "cena lista en {n} minutos",
            "así me queda el arroz suelto",
            "picando cebolla sin llorar",
            "hoy cocino con {name}",
            "el secreto de una buena salsa",
        ),
        Topic.SPORT: (
            "entrenamiento del {day} con el equipo",
            "asalto {n} del torneo",
            "{name} se prepara para la final",
            "calentando antes del partido",
            "el entrenador repite el movimiento",
            "serie {n} y ya no siento los brazos",
        ),
        Topic.FILM: (
            "rodaje de la escena {n}",
            "ensayando la pelea para el corto",
            "{name} hace de villano en la obra",
            "detrás de cámaras de nuestra película",
            "coreografía para el estreno",
            "toma {n} y esta sí salió",
        ),
        Topic.DARE: (
            "a que no te atreves, reto {n}",
            "{name} me retó y aquí estoy",
            "perdí la apuesta, toca cumplir",
            "el reto del que todos hablan",
            "nadie creía que lo haría",
            "broma a {name}, mira cómo termina",
        ),
        Topic.THREAT: (
            "te vas a arrepentir, {name}",
            "esto no se queda así",
            "último aviso antes del {day}",
            "ya sabemos dónde encontrarte",
            "me la vas a pagar",
            "dilo otra vez en mi cara",
        ),
        Topic.VAGUE: (
            "sin comentarios",
            "mi {day} en un video",
            "no tengo palabras",
            "{name}, mira esto",
            "cosas que pasan",
            "¿cómo lo llamarías?",
        ),
    },
    claim={
        Claim.OWN: (
            "grabado por mí con el móvil",
            "lo filmé y lo edité yo",
            "video original, hecho por mí",
            "me costó {n} intentos grabarlo",
            "todo el material es mío",
        ),
        Claim.CREDIT: (
            "créditos a quien lo grabó",
            "el original está en la página de {name}",
            "video de {name}, síganlo",
            "compartido con permiso de {name}",
            "todos los derechos son de su dueño",
        ),
        Claim.COMMENTARY: (
            "analizo lo que pasa aquí",
            "mi opinión sobre este clip",
            "reacciono por primera vez",
            "explico los {n} errores",
            "lo pauso para explicarlo",
        ),
        Claim.AGGREGATOR: (
            "los mejores {n} del día",
            "recopilación número {n}",
            "más videos así en nuestra página",
            "lo mejor de la semana, parte {n}",
            "síguenos para {n} más",
        ),
        Claim.DENIAL: (
            "no lo grabé yo, me lo pasaron",
            "ni idea de quién lo grabó",
            "este video no es mío",
            "me llegó por un grupo",
            "nunca dije que fuera mío",
        ),
    },
    sticker={
        Sticker.HYPE: (
            "mira hasta el final",
            "espera...",
            "no lo vas a creer",
            "sube el volumen",
        ),
        Sticker.SAFE: (
            "nadie salió herido, es teatro",
            "son actores y utilería",
            "no lo hagas en casa",
            "todo estaba ensayado",
        ),
        Sticker.UNSAFE: (
            "alguien salió herido, no es teatro",
            "ni actores ni utilería",
            "hazlo en casa",
            "nada estaba ensayado",
        ),
    },
)
