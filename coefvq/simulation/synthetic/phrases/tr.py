"""Turkish."""

from __future__ import annotations

from coefvq.simulation.synthetic.factors import Claim, Sticker, Topic
from coefvq.simulation.synthetic.phrases.book import Phrases

PHRASES = Phrases(
    days=("pazartesi", "salı", "çarşamba", "perşembe", "cuma", "cumartesi", "pazar"),
    moods=(),
    topic={
        Topic.COOK: (
            "anneannemin tarifi, adım adım",
            "{n} dakikada akşam yemeği",
            "{name} ile menemen yapıyoruz",
            "iyi bir sosun sırrı",
            "ağlamadan soğan doğramak",
            "{day} günü mutfaktayız",
        ),
        Topic.SPORT: (
            "takımla {day} antrenmanı",
            "ligimizde {n}. raunt",
            "{name} finale hazırlanıyor",
            "turnuva öncesi ısınma",
            "hoca hareketi yine gösteriyor",
            "{n}. set, kollarım bitti",
        ),
        Topic.FILM: (
            "{n}. sahnenin çekimleri",
            "kısa filmimizin kamera arkası",
            "film için kavga sahnesi provası",
            "{name} oyunda kötü adam",
            "gösteri için koreografi",
            "{n}. tekrar, bu sefer oldu",
        ),
        Topic.DARE: (
            "{n}. meydan okuma, sırada kim var?",
            "{name} iddiaya girdi, ben de yaptım",
            "iddiayı kaybettim, mecburum",
            "kimse yapacağıma inanmadı",
            "herkesin konuştuğu akımı denedim",
            "{name} ile şaka, bakın nasıl bitti",
        ),
        Topic.THREAT: (
            "pişman olacaksın, {name}",
            "bu iş burada bitmedi",
            "{day} gününe kadar son uyarı",
            "seni bulacağız",
            "bunu bir de yüzüme söyle",
            "hesabını vereceksin",
        ),
        Topic.VAGUE: (
            "yorum yok",
            "{day} günüm böyle geçti",
            "diyecek söz bulamadım",
            "{name}, şuna bak",
            "olur böyle şeyler",
            "sizce bu ne?",
        ),
    },
    claim={
        Claim.OWN: (
            "telefonumla kendim çektim",
            "orijinal video, bana ait",
            "çekim de kurgu da benim",
            "{n}. denemede çekebildim",
            "bütün görüntüler benim",
        ),
        Claim.CREDIT: (
            "video {name} hesabından",
            "orijinali {name} sayfasında",
            "çeken kişiye teşekkürler",
            "{name} izniyle paylaşıldı",
            "tüm haklar sahibine ait",
        ),
        Claim.COMMENTARY: (
            "bu video hakkında düşüncelerim",
            "ilk kez izliyorum, tepkim",
            "{n} hatayı anlatıyorum",
            "saniye saniye inceledim",
            "durdurup açıklıyorum",
        ),
        Claim.AGGREGATOR: (
            "derleme numara {n}",
            "haftanın en iyi {n} videosu",
            "devamı sayfamızda",
            "internetin en iyileri, bölüm {n}",
            "{n} video daha için takip et",
        ),
        Claim.DENIAL: (
            "ben çekmedim",
            "kim çekti bilmiyorum",
            "bu video bana ait değil",
            "bir gruptan geldi",
            "benim olduğunu hiç söylemedim",
        ),
    },
    sticker={
        Sticker.HYPE: (
            "sonuna kadar izle",
            "bekle...",
            "inanamayacaksın",
            "sesi aç",
        ),
        Sticker.SAFE: (
            "hepsi kurgu, kimse yaralanmadı",
            "oyuncular ve sahte malzeme",
            "evde denemeyin",
            "önceden prova edildi",
        ),
        Sticker.UNSAFE: (
            "kurgu değil, yaralanan var",
            "oyuncu yok, malzeme gerçek",
            "evde deneyin",
            "prova edilmedi",
        ),
    },
)
