"""Portuguese (Brazil)."""

from __future__ import annotations

from coefvq.simulation.synthetic.factors import Claim, Sticker, Topic
from coefvq.simulation.synthetic.phrases.book import Phrases

PHRASES = Phrases(
    days=("segunda", "terça", "quarta", "quinta", "sexta", "sábado", "domingo"),
    moods=(),
    topic={
        Topic.COOK: (
            "bolo de cenoura da vovó, passo a passo",
            "jantar pronto em {n} minutos",
            "o segredo do arroz soltinho",
            "cortando cebola sem chorar",
            "hoje eu cozinho com {name}",
            "molho caseiro que nunca falha",
        ),
        Topic.SPORT: (
            "treino de {day} na academia",
            "round {n} do nosso campeonato",
            "{name} treina para a final",
            "aquecimento antes do jogo",
            "o professor mostra o golpe de novo",
            "série {n} e não sinto os braços",
        ),
        Topic.FILM: (
            "bastidores do nosso curta-metragem",
            "gravando a cena {n}",
            "ensaio da luta para o filme",
            "{name} faz o papel de vilão na peça",
            "coreografia para a estreia",
            "corta! tomada {n}, ficou ótima",
        ),
        Topic.DARE: (
            "desafio aceito, agora é a vez de {name}",
            "duvidaram de mim e eu fui",
            "perdi a aposta para {name}",
            "desafio número {n}, quem é o próximo",
            "ninguém achou que eu teria coragem",
            "pegadinha com {name}, olha como termina",
        ),
        Topic.THREAT: (
            "isso não vai ficar assim, {name}",
            "você vai se arrepender",
            "último aviso até {day}",
            "a gente sabe onde te achar",
            "vai ter volta, {name}",
            "fala isso de novo na minha cara",
        ),
        Topic.VAGUE: (
            "coisas que acontecem",
            "sem palavras",
            "meu dia resumido",
            "{name}, olha isso aqui",
            "nem sei o que dizer",
            "como você chamaria isso",
        ),
    },
    claim={
        Claim.OWN: (
            "gravado por mim no celular",
            "vídeo original, feito por mim",
            "filmei e editei tudo",
            "levei {n} tentativas para gravar",
            "todas as imagens são minhas",
        ),
        Claim.CREDIT: (
            "créditos para {name}",
            "o original está na página de {name}",
            "repostado com respeito a quem gravou",
            "vídeo de {name}, sigam lá",
            "direitos de quem filmou",
        ),
        Claim.COMMENTARY: (
            "comentando cada detalhe",
            "minha opinião sobre este vídeo",
            "reagindo pela primeira vez",
            "explico os {n} erros deles",
            "pausei para explicar melhor",
        ),
        Claim.AGGREGATOR: (
            "os {n} melhores da semana",
            "compilado número {n}",
            "mais vídeos assim na nossa página",
            "o melhor da internet, parte {n}",
            "siga a página para ver mais {n}",
        ),
        Claim.DENIAL: (
            "não fui eu que gravei",
            "não faço ideia de quem filmou",
            "esse vídeo não é meu",
            "recebi num grupo",
            "nunca disse que filmei isso",
        ),
    },
    sticker={
        Sticker.HYPE: (
            "olha até o final",
            "espera só...",
            "você não vai acreditar",
            "aumenta o som",
        ),
        Sticker.SAFE: (
            "ninguém se machucou, é encenado",
            "são atores, é tudo de mentira",
            "não faça isso em casa",
            "tudo foi ensaiado",
        ),
        Sticker.UNSAFE: (
            "alguém se machucou, não é encenado",
            "não são atores, não é de mentira",
            "faça isso em casa",
            "nada foi ensaiado",
        ),
    },
)
