"""The words of the generated language."""

SINGULAR, PLURAL = 0, 1


def _words(words: str) -> tuple[str, ...]:
    return tuple(words.split())


def _regular(words: str) -> tuple[tuple[str, str], ...]:
    return tuple((word, word + "s") for word in words.split())


def _verbs(words: str) -> tuple[tuple[str, str], ...]:
    return tuple((word + "s", word) for word in words.split())


# Each pair is singular and plural.
NOUNS = (
    *_regular("dog cat bird king queen farmer doctor owl eagle ant teacher sailor elephant otter"),
    *(("child", "children"), ("mouse", "mice"), ("goose", "geese"), ("wolf", "wolves"), ("fox", "foxes")),
    *(("man", "men"), ("woman", "women"), ("fairy", "fairies")),
)
THINGS = (
    *_regular("pear apple stone coin egg orange book acorn lamp ring onion shell"),
    *(("box", "boxes"), ("leaf", "leaves"), ("berry", "berries"), ("knife", "knives")),
)
ADJECTIVES = _words("old young small tall angry happy red odd quiet idle brave early ugly wise blue eager")
SHE = _words("anna clara emma julia maria sofia")
HE = _words("ben david felix oscar paul tom")

# Each pair is the verb of a singular and of a plural subject.
SLEEP = _verbs("sleep sing run laugh wait swim dream smile listen arrive")
SEE = _verbs("see follow help hear find visit like paint thank remember")
BRING = _verbs("bring show offer lend sell")
SAY = _verbs("say know think hope believe")
GAIN, LOSE = ("finds", "buys", "gets", "picks"), ("loses", "sells", "drops", "eats")
JOIN = ("and", "but", "because", "while")
