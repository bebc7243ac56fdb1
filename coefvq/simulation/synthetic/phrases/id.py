"""Indonesian."""

from __future__ import annotations

from coefvq.simulation.synthetic.factors import Claim, Sticker, Topic
from coefvq.simulation.synthetic.phrases.book import Phrases

PHRASES = Phrases(
    days=("Senin", "Selasa", "Rabu", "Kamis", "Jumat", "Sabtu", "Minggu"),
    moods=(),
    topic={
        Topic.COOK: (
            "resep nenek, langkah demi langkah",
            "makan malam siap dalam {n} menit",
            "masak nasi goreng bareng {name}",
            "rahasia sambal yang enak",
            "potong bawang tanpa menangis",
            "hari {day} masak soto",
        ),
        Topic.SPORT: (
            "latihan hari {day} sama tim",
            "ronde {n} di liga kami",
            "{name} latihan buat final",
            "pemanasan sebelum turnamen",
            "pelatih kasih contoh gerakan lagi",
            "set ke-{n}, tangan sudah pegal",
        ),
        Topic.FILM: (
            "syuting adegan {n}",
            "di balik layar film pendek kami",
            "latihan adegan berantem buat film",
            "{name} jadi penjahat di drama ini",
            "koreografi buat pentas nanti",
            "take ke-{n}, akhirnya bagus",
        ),
        Topic.DARE: (
            "tantangan ke-{n}, siapa berani?",
            "{name} nantang, ya aku terima",
            "kalah taruhan, harus dilakukan",
            "nggak ada yang nyangka aku berani",
            "ikut tantangan yang lagi ramai",
            "prank {name}, lihat ujungnya",
        ),
        Topic.THREAT: (
            "tunggu saja, {name}",
            "kamu bakal menyesal",
            "peringatan terakhir sampai hari {day}",
            "kami tahu kamu di mana",
            "urusan kita belum selesai",
            "coba ngomong lagi di depanku",
        ),
        Topic.VAGUE: (
            "ya begitulah",
            "hari {day} dalam satu video",
            "nggak bisa berkata-kata",
            "{name}, lihat ini",
            "kadang memang begini",
            "menurut kalian ini apa?",
        ),
    },
    claim={
        Claim.OWN: (
            "aku rekam sendiri pakai HP",
            "video asli buatanku",
            "direkam dan diedit sendiri",
            "butuh {n} kali buat merekamnya",
            "semua rekaman punyaku",
        ),
        Claim.CREDIT: (
            "kredit untuk {name}",
            "video asli ada di akun {name}",
            "repost dari {name}, izin ya",
            "hak cipta milik perekamnya",
            "makasih buat yang merekam",
        ),
        Claim.COMMENTARY: (
            "pendapatku soal video ini",
            "reaksi pertamaku",
            "aku jelaskan {n} kesalahannya",
            "aku bahas detik demi detik",
            "aku jeda buat menjelaskan",
        ),
        Claim.AGGREGATOR: (
            "kompilasi nomor {n}",
            "{n} video terbaik minggu ini",
            "video lainnya ada di akun kami",
            "kumpulan terbaik, bagian {n}",
            "follow untuk {n} video lagi",
        ),
        Claim.DENIAL: (
            "bukan aku yang rekam",
            "nggak tahu siapa yang merekam",
            "ini bukan videoku",
            "dapat dari grup",
            "aku nggak pernah bilang ini punyaku",
        ),
    },
    sticker={
        Sticker.HYPE: (
            "tonton sampai habis",
            "tunggu...",
            "nggak bakal percaya",
            "nyalakan suaranya",
        ),
        Sticker.SAFE: (
            "cuma akting, tidak ada yang luka",
            "semua aktor dan properti",
            "jangan ditiru di rumah",
            "sudah dilatih dulu",
        ),
        Sticker.UNSAFE: (
            "bukan akting, ada yang luka",
            "tanpa aktor, tanpa properti",
            "tiru di rumah",
            "tidak dilatih dulu",
        ),
    },
)
