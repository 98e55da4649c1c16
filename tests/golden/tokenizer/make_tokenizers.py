"""Makes the tokenizer goldens with the reference implementation. Run: pip install tokenizers==0.23.3 && python make_tokenizers.py

Writes one small tokenizer.json per family, trained here on the text below, and cases.json: texts with the ids, and ids with the texts,
that the reference gives. An "override" replaces top-level fields of the file, so that variants share one vocabulary.
"""
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK = [r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]

CORPUS = [
    "The quick brown fox jumps over the lazy dog. Don't you think it's odd? I'll say we've been there; they're fine, I'd bet.",
    "def main(argc, argv):\n    for i in range(100):\n        print(f'{i:03d}', end='')\n\n\treturn 0\n",
    "Il était une fois, à Noël, un garçon naïf; où est-il allé? Ça alors! Größe, Straße, Übermut, señor, mañana.",
    "Привет, мир! Это проверка разбиения слов. Съешь же ещё этих мягких французских булок.",
    "こんにちは世界。これはテストです。日本語の文章を分割します。你好，世界！今天天气很好。안녕하세요 세계",
    "مرحبا بالعالم هذا اختبار. שלום עולם. नमस्ते दुनिया यह एक परीक्षण है।",
    "1234567890 3.14159 2024-05-17 12:34:56 ١٢٣ ½ Ⅷ",
    "😀😃👍🏽 👨‍👩‍👧‍👦 🇫🇷 ☃ ∑ → ≤ «»“”‘’…—–",
    "   leading and trailing   \n\n\n  many   spaces\t\ttabs\r\nwindows lines\r\n\r\nend  ",
    "the theory of the thing is that the thread then threw them through there",
]

TEXTS = CORPUS + [
    "", " ", "  ", "\n", "\r\n", "\t", "a", " a", "a ", "  a", "a  b", "a\n b", "a \n\n b", "\n\n\n", " \n \n ", "hello world", "Hello World!",
    "HELLO'S don'T I'LL 'S 's ſ 'ſ", "foo123bar4567", "x1y22z333w4444", "1,234,567.89", "snake_case camelCase PascalCase kebab-case",
    "https://example.com/a/b?c=d&e=f#g", "user@example.com", "#!/bin/sh\nset -eu\n", "{\"key\": [1, 2, null], \"other\": \"value\\n\"}", "a//b\n//c/\n",
    "e\u0301 é \u1112\u1161\u11ab 한 ﬁ ① Å Å \u0344", "A\u030a\u0323", "q\u0307\u0323", "ǅ ǆ İ ı ß ẞ ΑΣ ς", "\u00a0nbsp\u2003em\u3000ideographic\u2028line\u2029para\u0085nel",
    "\u180evowel\u200bzero\u200cwidth\u200d\u2060\ufeff", "\x00\x01\x1c\x1f\x7f\x80\x9f", "tab\tsep\vvt\fff", "\ufffd \ufffe \U0010ffff \U000e0001", "ไทยไม่มีช่องว่าง",
    "🏳️‍🌈🏴󠁧󠁢󠁥󠁮󠁧󠁿", "💩" * 5, "a" * 70, " " * 70, "\n" * 9 + "x", "ab" * 40, "._-" * 9, "….…", "Ｆｕｌｌｗｉｄｔｈ１２３", "x²+y³=z¹", "a_b __init__ ___", "▁already ▁ ▁▁x",
    "<|bos|>", "<|bos|><|eos|>", "x<|bos|>y", " <|bos|> ", "<|bos|", "<|b<|bos|>", "<tool>call</tool>", "a<tool>b <tool> c", "<mask>", "a <mask> b", "a  <mask>  b<mask>", "  <left>x", "x  <left>  <left>y",
    "<right>  x", "<right>\n\n<right> ", "word", "words word sword word.", "a word_ _word word", "wordé éword", "WORD Word", "Big BIG big bigger", "éBig", "<|pad|><|padded|>", "<|pad", "ABAB", "<0x41> <0xFF>",
]

ALPHABET = list("aabcdeehilnorstuATS  01259.,!?'-_/\\\n\n\t\"(){}[]<>|=+*&%$#@~^`:;") + ["é", "ß", "ж", "Я", "你", "好", "ん", "한", "😀", "👍🏽", "\u0301", "\u00a0", "'s", "'LL", "  ", "\r\n", "<|bos|>", "<mask>",
                                                                        "<tool>", "word", "Big", "the", "▁", "½", "١", "\u200d", "\u3000"]


def texts_for(seed):
    rng = random.Random(seed)
    return TEXTS + ["".join(rng.choice(ALPHABET) for _ in range(rng.randint(2, 40))) for _ in range(60)]


def train(name, tokenizer, vocab=700, alphabet=None, **kwargs):
    trainer = trainers.BpeTrainer(vocab_size=vocab, show_progress=False, initial_alphabet=alphabet or pre_tokenizers.ByteLevel.alphabet(), **kwargs)
    tokenizer.train_from_iterator(CORPUS * 2, trainer)
    return name, tokenizer


def specials(tokenizer):
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<|bos|>", "<|eos|>", "<|pad|>", "<|padded|>")])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("</tool>", normalized=False)])


def byte_level(pattern, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in ([pattern] if isinstance(pattern, str) else pattern)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def gpt2():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    train("gpt2", tokenizer)
    specials(tokenizer)
    return tokenizer


def llama3():
    tokenizer = byte_level(LLAMA3, ignore_merges=True)
    train("llama3", tokenizer)
    specials(tokenizer)
    bos = tokenizer.token_to_id("<|bos|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<|bos|> $A", pair="<|bos|> $A <|bos|>:1 $B:1", special_tokens=[("<|bos|>", bos)])])
    return tokenizer


def qwen():
    tokenizer = byte_level(QWEN)
    tokenizer.normalizer = normalizers.NFC()
    train("qwen", tokenizer)
    specials(tokenizer)
    return tokenizer


def o200k():
    tokenizer = byte_level(O200K, ignore_merges=True)
    train("o200k", tokenizer)
    specials(tokenizer)
    return tokenizer


def deepseek():
    tokenizer = byte_level(DEEPSEEK)
    train("deepseek", tokenizer)
    specials(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<|bos|> $A <|eos|>", special_tokens=[
        ("<|bos|>", tokenizer.token_to_id("<|bos|>")), ("<|eos|>", tokenizer.token_to_id("<|eos|>"))])
    return tokenizer


BYTES = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
LETTERS = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'\"-()▁éàñöüß你好世界の")


def llama2():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    train("llama2", tokenizer, vocab=700, alphabet=LETTERS, special_tokens=BYTES, limit_alphabet=len(LETTERS))
    tokenizer = Tokenizer.from_str(strip_byte_tokens(tokenizer))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    specials(tokenizer)
    return tokenizer


def strip_byte_tokens(tokenizer):
    """The trainer marks its special tokens as added; the bytes are ordinary tokens of the model."""
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    return json.dumps(data)


def gemma():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    train("gemma", tokenizer, vocab=700, alphabet=LETTERS, special_tokens=BYTES, limit_alphabet=len(LETTERS))
    tokenizer = Tokenizer.from_str(strip_byte_tokens(tokenizer))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    specials(tokenizer)
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("▁▁", normalized=False)])
    return tokenizer


def metaspace():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    train("metaspace", tokenizer, vocab=400, alphabet=LETTERS, special_tokens=["<unk>"], limit_alphabet=len(LETTERS))
    specials(tokenizer)
    return tokenizer


def flags():
    tokenizer = byte_level(LLAMA3)
    tokenizer.normalizer = normalizers.Lowercase()
    train("flags", tokenizer, vocab=450)
    specials(tokenizer)
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False), AddedToken("<left>", lstrip=True, normalized=False),
                          AddedToken("<right>", rstrip=True, normalized=False), AddedToken("word", single_word=True, normalized=False),
                          AddedToken("Big", normalized=True), AddedToken("bigger", normalized=True, single_word=True), AddedToken("ABAB", normalized=True)])
    return tokenizer


def clip():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    train("clip", tokenizer, vocab=450, alphabet=LETTERS, special_tokens=["<unk>", "<s>", "</s>"], end_of_word_suffix="</w>", limit_alphabet=len(LETTERS))
    return tokenizer


def wordprefix():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    train("wordprefix", tokenizer, vocab=500, alphabet=LETTERS, special_tokens=["<unk>"], continuing_subword_prefix="##", limit_alphabet=len(LETTERS))
    return tokenizer


def split(pattern, behavior, invert=False, literal=False):
    return {"type": "Split", "pattern": {"String" if literal else "Regex": pattern}, "behavior": behavior, "invert": invert}


def overrides():
    """(base, name, fields) of variants."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps = {f"split {b}{' inverted' if i else ''}": split(r"[aeiou]+|\d", b, i)
             for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous") for i in (False, True)}
    steps |= {
        "split literal": split("th", "Isolated", literal=True), "split empty matches": split(r"x*", "Isolated"), "split word": split(r"\w+", "Isolated"),
        "split not word": split(r"[^\w\s]+", "Isolated"), "split space": split(r"\s", "Removed"), "split not space": split(r"\S+|[^\S\n]", "Isolated"),
        "split intersection": split(r"[\p{L}&&[^aeiou]]+", "Isolated"), "split nested": split(r"[a-f[0-9]]+", "Isolated"),
        "split interval plus": split(r"\p{N}{1,2}+", "Isolated"), "split lines": split(r"^.|.$", "Isolated"), "split dotall": split(r"(?m:o.{2})", "Isolated"),
        "split posix": split(r"[[:alpha:]]+|[[:punct:]]", "Isolated"), "split property": split(r"\p{Han}+|\p{^L}", "Isolated"), "split hex": split(r"\h{2}", "Isolated"),
        "split boundary": split(r"\bt\w", "Isolated"), "split lookbehind": split(r"(?<=e)\s", "Isolated"), "split unicode": split(r"\u00e9|\x{4f60}", "Isolated"),
        "split inner options": split(r"th(?i)E|q", "Isolated"), "split set minus": split(r"[\s-]+|[\w.-]", "Isolated"), "split atomic": split(r"(?>a+)b|\S++", "Isolated"),
        "digits": {"type": "Digits", "individual_digits": False}, "individual digits": {"type": "Digits", "individual_digits": True},
        "punctuation": {"type": "Punctuation", "behavior": "Isolated"}, "punctuation contiguous": {"type": "Punctuation", "behavior": "Contiguous"},
        "whitespace": {"type": "Whitespace"}, "whitespace split": {"type": "WhitespaceSplit"}, "delimiter": {"type": "CharDelimiterSplit", "delimiter": "e"},
        "prefix space": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    }
    for name, step in steps.items():
        yield "gpt2", name, {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [step] + ([] if name == "prefix space" else [level])}}
    for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        yield "gpt2", form, {"normalizer": {"type": form}}
    for left in (False, True):
        yield "gpt2", f"strip {left}", {"normalizer": {"type": "Strip", "strip_left": left, "strip_right": not left}}
    yield "gpt2", "byte level normalizer", {"normalizer": {"type": "ByteLevel"}, "pre_tokenizer": None}
    yield "gpt2", "replace by pattern", {"normalizer": {"type": "Replace", "pattern": {"Regex": "[aeiou]+"}, "content": "_"}}
    yield "gpt2", "no decoder", {"decoder": None}
    for scheme in ("always", "never", "first"):
        for cut in (False, True):
            yield "metaspace", f"{scheme} {cut}", {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut},
                                                   "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}}


def case_set(file, override, tokenizer, seed, texts):
    rng = random.Random(seed)
    cases = []
    for text in texts:
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        full = tokenizer.encode(text, add_special_tokens=True).ids
        case = {"text": text, "ids": plain, "decoded": tokenizer.decode(plain, skip_special_tokens=False)}
        if full != plain:
            case["full_ids"] = full
        skipped = tokenizer.decode(full, skip_special_tokens=True)
        if skipped != case["decoded"]:
            case["skipped"] = skipped
        cases.append(case)
    size = tokenizer.get_vocab_size()
    decodes = []
    for _ in range(25):
        ids = [rng.randrange(size + 3) for _ in range(rng.randint(1, 12))]
        decodes.append({"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
    entry = {"tokenizer": file, "cases": cases, "decodes": decodes}
    if override:
        entry["name"], entry["override"] = override
    return entry


def main():
    sets = []
    made = {f.__name__: f() for f in (gpt2, llama3, qwen, o200k, deepseek, llama2, gemma, metaspace, flags, clip, wordprefix)}
    for seed, (name, tokenizer) in enumerate(made.items()):
        data = json.loads(tokenizer.to_str())
        (HERE / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf8")
        sets.append(case_set(f"{name}.json", None, Tokenizer.from_str(json.dumps(data)), seed, texts_for(seed)))
    for seed, (base, name, fields) in enumerate(overrides()):
        data = json.loads(made[base].to_str()) | fields
        sets.append(case_set(f"{base}.json", (name, fields), Tokenizer.from_str(json.dumps(data)), seed, texts_for(seed)[::2]))
    (HERE / "cases.json").write_text(json.dumps(sets, ensure_ascii=True, indent=0, separators=(",", ":")) + "\n")


main()
