"""The language of a text, by its script and its commonest words: 50 languages, written by hand for this
package.

Enough to check "answer in French", on a text of a sentence or more. It is no general language identifier:
what is not in the lists is not known, and close relatives (Danish and Norwegian, Serbian and Bulgarian) are
told apart by few words.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

LEAST = 0.08
"""The smallest share of words that must be known ones for a language in Latin script."""

_SCRIPTS: tuple[tuple[str, str], ...] = (
    # a script, as ranges of a character class → the only language of it that is known here
    ("ᄀ-ᇿ㄰-㆏가-힯", "ko"),
    ("\u3040-\u30ff", "ja"),
    ("฀-๿", "th"),
    ("\u0590-\u05ff", "he"),
    ("Ͱ-Ͽἀ-῿", "el"),
    ("\u0530-\u058f", "hy"),
    ("Ⴀ-ჿ", "ka"),
    ("ঀ-৿", "bn"),
    ("\u0a00-\u0a7f", "pa"),
    ("\u0a80-\u0aff", "gu"),
    ("\u0b80-\u0bff", "ta"),
    ("\u0c00-\u0c7f", "te"),
    ("\u0c80-\u0cff", "kn"),
    ("\u0d00-\u0d7f", "ml"),
    ("\u0d80-\u0dff", "si"),
    ("ក-៿", "km"),
    ("\u0e80-\u0eff", "lo"),
    ("က-႟", "my"),
    ("ሀ-፿", "am"),
    ("\u3400-\u4dbf一-鿿", "zh"),  # behind ja, which is written in it too
)
_SHARED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # a script of several languages → the one where no known word decides, all of them
    ("\u0900-\u097f", "hi", ("hi", "mr", "ne")),
    ("\u0600-\u06ff\u0750-\u077f", "ar", ("ar", "fa", "ur")),
    ("Ѐ-ӿ", "ru", ("ru", "uk", "bg", "sr")),
)
_LATIN = (
    *("en", "es", "pt", "fr", "de", "it", "nl", "pl", "vi", "sw", "fi", "sv"),
    *("da", "no", "cs", "ro", "tr", "id", "hu", "tl"),
)
_WORDS: dict[str, str] = {
    "en": "the of and to in is that it for was on are with as be this have from or by not but what you they "
    "we can which their will would there your i my has an at if he she",
    "es": "de la que el en y los del se las por un para con no una su al lo como más pero sus le ya o este "
    "sí porque esta entre cuando muy sin sobre también es son está hay todo",
    "pt": "de que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das tem "
    "à seu sua ou ser quando muito há nos já está também só pelo pela até isso são você",
    "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont "
    "avec ou son mais comme je vous nous cette ses être fait été aux d l c qu elle leur",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an "
    "werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so ich wir "
    "man oder wenn",
    "it": "di che e la il un a per in una mi sono ho non ma lo ha le si ti i con cosa come questo da ci no "
    "se della gli è del nel più anche dei alla delle loro essere molto o al",
    "nl": "de het een van en in is dat op te zijn met voor niet aan er om ook als dan maar bij of uit nog "
    "naar worden door wordt hij ze je ik wat deze dit heeft kan geen over zo hun",
    "pl": "i w na z do się nie że to jest o jak po co tak za od ale by czy już dla tylko przez może jego są "
    "być go które jako oraz przed który która był była więc ich ten ta",
    "vi": "và của là có không được cho trong một với các những người này để khi đã đến từ ra về như tôi bạn "
    "cũng nhiều nhưng hay rất vào lại phải sẽ làm thì nó đó ở",
    "sw": "na ya wa kwa ni katika la za kuwa hii cha au kama yake lakini si pia hiyo vya watu huo sana "
    "hivyo mtu wakati kutoka hata bila moja ambayo wao yangu kila baada huu hizi ili",
    "fi": "ja on ei että se hän oli joka myös mutta kun sen niin tai ovat voi mitä kuin minä sinä me he "
    "tämä ole jos vain olla kanssa jotka ollut nyt siitä kaikki hyvin sekä mukaan jo",
    "sv": "och i att det som en på är av för med den till inte ett om de har jag man så vi från men var kan "
    "när eller sig nu också vid hur där mycket efter alla bara över ska dig mig",
    "da": "og i at det er en til af på den med for ikke der som de et har jeg om men var han vi kan så fra "
    "eller sig nu også ved hvor efter alle kun over skal dig mig hvad blev være",
    "no": "og i å at det er en til av på den med for ikke som de et har jeg om men var han vi kan så fra "
    "eller seg nå også ved hvor etter alle bare over skal deg meg hva ble være",
    "cs": "a se v na je že s z do to i o k ve pro za by jako ale jsou po co tak jeho jsem podle které který "
    "už být má jsme když nebo její není byl bylo aby ten ta při",
    "ro": "și de a în la cu că pe nu o un este se din mai pentru care sunt ce sa au fost dar după sau al "
    "ale ca prin lui fi dacă când foarte această acest fiecare între despre",
    "tr": "ve bir bu da de için çok ne o ile olarak daha gibi en var ama ki değil kadar sonra olan mı her "
    "mi ben sen onun ya veya şey nasıl iyi ise göre biz siz olduğunu oldu tüm",
    "id": "yang dan di untuk dengan dari ini itu tidak dalam pada adalah ke akan juga atau saya anda mereka "
    "oleh bisa ada kami karena sebagai lebih dapat telah sudah seperti banyak orang kita tersebut",
    "hu": "a az és hogy nem is egy ez de van meg csak ha mint már vagy volt lehet azt még el kell ki amely "
    "minden nagyon ezt hogyan mert én te mi akkor lesz ami pedig sem után",
    "tl": "ang ng sa na at mga ay ko mo niya ito hindi ka para si kung may siya ni namin natin kayo ako "
    "isang ating kanilang rin pa din lamang kapag dahil upang nang kami",
    "hi": "है के की में और का से को यह पर नहीं था एक हैं लिए हो कर ने भी तो जो वह इस कि थे रहा रही आप हम करने लेकिन या",
    "mr": "आहे आणि मध्ये हे आहेत होते नाही या ते असे किंवा साठी मी तुम्ही त्या हा ही का पण तर झाले करा केले "
    "त्यांच्या करण्यासाठी होता होती म्हणून खूप आम्ही",
    "ne": "छ छन् मा र लाई भएको गर्न हुन्छ पनि यो गर्नुहोस् लागि तपाईं हो थियो गरेको तर हुन् गर्ने सबै म "
    "हामी धेरै भने वा यस त्यो छैन गर्छ",
    "ar": "في من على إلى أن هذا التي الذي مع كان هو هي عن ما لا هذه ذلك كل أو بعد بين لم قد كما عند إن و ثم "
    "غير حتى",
    "fa": "است که از این به را در با برای می یک های آن هم شما ما خود بود شود کند باشد تا هر نیست اما یا ها "
    "اگر دارد بر",
    "ur": "ہے کے کی میں اور کا سے کو نے پر یہ ہیں کہ اس نہیں تھا بھی لیے ایک جو ہو کر تو ہم آپ وہ تھے لیکن "
    "یا گیا",
    "ru": "и в не на что с как это по но для он из от к у же вы так за бы мы то или если она его они есть "
    "был все при может который можно очень",
    "uk": "і в не на що з як це по але для він із від до у та ви так за би ми або якщо вона його вони є був "
    "усі при може який можна дуже й про ще",
    "bg": "и на се да за от е са че с по как като или не в това си ще но към при той тя те му го съм беше "
    "има може които който много също след",
    "sr": "и у је да се на за од са не су као али или то што ће би он она они који која врло због када њих "
    "бити има може након",
}
_LETTERS: dict[str, str] = {
    # letters that a language has and its neighbours here have not: a word with one counts as known
    "es": "ñ¿¡",
    "pt": "ãõ",
    "de": "ß",
    "pl": "łżźśćńęą",
    "vi": "ơưđạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ",
    "cs": "řěůťď",
    "ro": "țșăţş",
    "tr": "ığ",
    "hu": "őű",
    "mr": "ळ",
    "fa": "پچژگ",
    "ur": "ٹڈڑےںہھ",
    "ru": "ыэё",
    "uk": "іїєґ",
    "sr": "јљњћђџ",
}
_MARKS = '.,;:!?…()[]{}<>«»“”„"*_#।،؟۔'


def known_languages() -> tuple[str, ...]:
    """The ISO 639-1 codes of the languages that ``detect_language`` knows."""
    return tuple(sorted({*_WORDS, *(code for _, code in _SCRIPTS)}))


def detect_language(text: str) -> str | None:
    """The ISO 639-1 code of the text's language, or None where it has no letters or no known words.

    The script with the most letters decides; where several languages share it, the share of words that are
    among a language's commonest, or hold a letter that its neighbours lack. A text in several languages is
    taken for the one of most of it.
    """
    lower = text.lower()
    counted = Counter({code: len(re.findall(f"[{span}]", lower)) for span, code in _SCRIPTS})
    counted.update({first: len(re.findall(f"[{span}]", lower)) for span, first, _ in _SHARED})
    counted["latin"] = len(re.findall(r"[a-zà-ɏ\u1e00-\u1eff]", lower))
    if counted["ja"]:  # Japanese is written in Chinese characters too
        counted["ja"] += counted.pop("zh")
    script, n = counted.most_common(1)[0]
    if not n:
        return None
    if script == "latin":
        return _by_words(lower, _LATIN, LEAST)
    for _, first, codes in _SHARED:
        if script == first:
            return _by_words(lower, codes, 0.0) or first
    return script


def _by_words(lower: str, codes: tuple[str, ...], least: float) -> str | None:
    """The language of ``codes`` to which most words belong; None where that is no more than ``least`` of
    them."""
    words = [part.strip(_MARKS) for part in re.split(r"[\s'’–—-]+", lower)]
    words = [word for word in words if word and not word.isdigit()]
    if not words:
        return None
    scores = Counter({code: sum(_belongs(word, code) for word in words) / len(words) for code in codes})
    (best, share), *_ = scores.most_common(1)
    return best if share > least else None


def _belongs(word: str, code: str) -> bool:
    return word in _commonest(code) or any(letter in word for letter in _LETTERS.get(code, ""))


@cache
def _commonest(code: str) -> frozenset[str]:
    return frozenset(_WORDS[code].split())
