"""The language of sentences written for this test, and of published problems in several languages."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.metrics.languages import detect_language, known_languages

SENTENCES = {
    "en": "I think that the best way to learn a language is to speak it with other people every day.",
    "es": "Creo que la mejor manera de aprender un idioma es hablarlo con otras personas todos los días.",
    "pt": "Acho que a melhor maneira de aprender uma língua é falar com outras pessoas todos os dias.",
    "fr": "Je pense que la meilleure façon d'apprendre une langue est de la parler chaque jour.",
    "de": "Ich glaube, dass man eine Sprache am besten lernt, wenn man sie jeden Tag mit anderen spricht.",
    "it": "Penso che il modo migliore per imparare una lingua sia parlarla ogni giorno con le altre persone.",
    "nl": "Ik denk dat je een taal het beste leert als je die elke dag met andere mensen spreekt.",
    "pl": "Myślę, że najlepszym sposobem na naukę języka jest codzienna rozmowa z innymi ludźmi.",
    "vi": "Tôi nghĩ rằng cách tốt nhất để học một ngôn ngữ là nói với người khác mỗi ngày.",
    "sw": "Ninafikiri kuwa njia bora ya kujifunza lugha ni kuzungumza na watu wengine kila siku.",
    "fi": "Minusta paras tapa oppia kieltä on puhua sitä muiden kanssa joka päivä, ja se on myös hauskaa.",
    "sv": "Jag tror att det bästa sättet att lära sig ett språk är att tala det med andra varje dag.",
    "da": "Jeg tror, at den bedste måde at lære et sprog på er at tale det med andre, og det af lyst.",
    "no": "Jeg tror at den beste måten å lære et språk på er å snakke det med andre hver dag, nå og etter.",
    "cs": "Myslím, že nejlepší způsob, jak se naučit jazyk, je mluvit s ostatními lidmi každý den.",
    "ro": "Cred că cel mai bun mod de a învăța o limbă este să o vorbești cu alți oameni în fiecare zi.",
    "tr": "Bence bir dili öğrenmenin en iyi yolu, onu her gün başka insanlarla konuşmaktır.",
    "id": "Saya pikir cara terbaik untuk belajar bahasa adalah berbicara dengan orang lain setiap hari.",
    "hu": "Azt hiszem, hogy egy nyelvet a legjobban úgy lehet megtanulni, ha minden nap beszélünk másokkal.",
    "tl": "Sa tingin ko, ang pinakamahusay na paraan upang matuto ng wika ay makipag-usap sa mga tao.",
    "hi": "मुझे लगता है कि भाषा सीखने का सबसे अच्छा तरीका हर दिन लोगों से बात करना है।",
    "mr": "मला वाटते की भाषा शिकण्याचा सर्वात चांगला मार्ग म्हणजे दररोज इतर लोकांशी बोलणे आहे आणि ते सोपे आहे.",
    "ne": "मलाई लाग्छ भाषा सिक्ने सबैभन्दा राम्रो तरिका हरेक दिन अरूसँग कुरा गर्नु हो र यो सजिलो छ।",
    "ar": "أعتقد أن أفضل طريقة لتعلم اللغة هي التحدث بها مع الآخرين في كل يوم.",
    "fa": "فکر می‌کنم بهترین راه برای یادگیری زبان این است که هر روز با دیگران صحبت کنید.",
    "ur": "میرا خیال ہے کہ زبان سیکھنے کا بہترین طریقہ یہ ہے کہ ہر روز دوسروں سے بات کریں۔",
    "ru": "Я думаю, что лучший способ выучить язык — говорить на нём с другими людьми каждый день.",
    "uk": "Я думаю, що найкращий спосіб вивчити мову — щодня розмовляти нею з іншими людьми.",
    "bg": "Мисля, че най-добрият начин да се научи език е да се говори с другите хора всеки ден.",
    "sr": "Мислим да је најбољи начин да се научи језик разговор са другим људима сваког дана.",
    "ko": "언어를 배우는 가장 좋은 방법은 매일 다른 사람들과 이야기하는 것이라고 생각합니다.",
    "ja": "言語を学ぶ一番の方法は、毎日ほかの人と話すことだと思います。",
    "zh": "我认为学习语言最好的方法是每天和别人交谈。",
    "th": "ฉันคิดว่าวิธีที่ดีที่สุดในการเรียนภาษาคือการพูดคุยกับคนอื่นทุกวัน",
    "he": "אני חושב שהדרך הטובה ביותר ללמוד שפה היא לדבר עם אנשים אחרים כל יום.",
    "el": "Νομίζω ότι ο καλύτερος τρόπος για να μάθεις μια γλώσσα είναι να τη μιλάς κάθε μέρα.",
    "bn": "আমি মনে করি ভাষা শেখার সবচেয়ে ভালো উপায় হলো প্রতিদিন কথা বলা।",
    "pa": "ਮੈਨੂੰ ਲੱਗਦਾ ਹੈ ਕਿ ਭਾਸ਼ਾ ਸਿੱਖਣ ਦਾ ਸਭ ਤੋਂ ਵਧੀਆ ਤਰੀਕਾ ਹਰ ਰੋਜ਼ ਗੱਲ ਕਰਨਾ ਹੈ।",
    "gu": "મને લાગે છે કે ભાષા શીખવાની શ્રેષ્ઠ રીત દરરોજ વાત કરવી છે.",
    "ta": "மொழியைக் கற்க சிறந்த வழி தினமும் பேசுவது என்று நினைக்கிறேன்.",
    "te": "భాష నేర్చుకోవడానికి ఉత్తమ మార్గం ప్రతిరోజూ మాట్లాడటం అని నేను అనుకుంటున్నాను.",
    "kn": "ಭಾಷೆಯನ್ನು ಕಲಿಯಲು ಉತ್ತಮ ಮಾರ್ಗವೆಂದರೆ ಪ್ರತಿದಿನ ಮಾತನಾಡುವುದು ಎಂದು ನಾನು ಭಾವಿಸುತ್ತೇನೆ.",
    "ml": "ഭാഷ പഠിക്കാനുള്ള ഏറ്റവും നല്ല മാർഗം എല്ലാ ദിവസവും സംസാരിക്കുക എന്നതാണ്.",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_sentences(code: str) -> None:
    assert detect_language(SENTENCES[code]) == code
    assert detect_language(SENTENCES[code].upper()) == code


def test_every_language_is_listed() -> None:
    assert set(SENTENCES) <= set(known_languages())
    assert len(known_languages()) == 50


def test_most_of_the_text_decides() -> None:
    assert detect_language(SENTENCES["fr"] + " " + SENTENCES["fr"] + " the best of it") == "fr"
    assert detect_language("The word " + SENTENCES["zh"] + SENTENCES["zh"]) == "zh"


@pytest.mark.parametrize("text", ["", " 12 + 3 = 15 ", "!?", "xqzt bvnm", "42 €"])
def test_nothing_to_go_by(text: str) -> None:
    assert detect_language(text) is None


@given(st.text(max_size=100))
def test_a_known_language_or_none(text: str) -> None:
    assert detect_language(text) in {None, *known_languages()}


@pytest.mark.parametrize("code", ["de", "en", "fr", "th", "zh"])
def test_published_problems(shared_data: Path, code: str) -> None:
    plain, packed = (shared_data / "mgsm" / f"mgsm_{code}.{end}" for end in ("tsv", "tsv.gz"))
    text = plain.read_text("utf-8") if plain.is_file() else gzip.decompress(packed.read_bytes()).decode()
    problems = [row[0] for row in csv.reader(text.splitlines(), delimiter="\t")]
    found = [detect_language(problem) for problem in problems]
    assert len(problems) == 250
    assert found.count(code) / len(found) >= 0.99
