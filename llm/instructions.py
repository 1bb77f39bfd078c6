"""Generated instructions with checkable answers: five tasks, with training and test sets."""

import itertools
import json
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path

from eakd_det.utils.files import write_atomically

WORDS = tuple(
    """
    apple bird boat book bread candle chair cloud coat corn cup desk door drum egg farm fish flag
    forest garden glass hat horse house island jar key lamp leaf lemon map milk moon nest ocean pear
    """.split()  # noqa: SIM905
)
NAMES = tuple("Ada Ben Cleo Dan Eva Finn Gus Hana Ivo Jana Karl Lena".split())  # noqa: SIM905
FACTS = {
    "pet": ("cat", "dog", "parrot", "rabbit", "hamster", "turtle"),
    "colour": ("red", "blue", "green", "yellow", "purple", "orange"),
    "city": ("Paris", "Rome", "Oslo", "Cairo", "Lima", "Tokyo"),
    "sport": ("tennis", "rowing", "chess", "judo", "golf", "fencing"),
}
QUESTIONS = (
    "What is the {fact} of {name}?",
    "Which {fact} does {name} have?",
    "Name the {fact} of {name}.",
    "Tell me {name}'s {fact}.",
    "Do you know {name}'s {fact}?",
    "{name}: which {fact}?",
)

Example = dict[str, str]


def sort_words(rng: random.Random) -> Example:
    """Return an example of words to sort alphabetically."""
    words = rng.sample(WORDS, rng.randint(2, 3))
    instruction = rng.choice(("Sort these words.", "Put the words in alphabetical order."))
    return _example(instruction, words, sorted(words))


def copy_words(rng: random.Random) -> Example:
    """Return an example of words to repeat."""
    words = rng.sample(WORDS, rng.randint(2, 3))
    return _example(rng.choice(("Repeat these words.", "Copy the words.")), words, words)


def reverse_words(rng: random.Random) -> Example:
    """Return an example of words to reverse."""
    words = rng.sample(WORDS, rng.randint(2, 3))
    instruction = rng.choice(("Reverse these words.", "Say the words backwards."))
    return _example(instruction, words, words[::-1])


def add_numbers(rng: random.Random) -> Example:
    """Return an example of two numbers below 20 to add."""
    a, b = rng.randrange(20), rng.randrange(20)
    instruction = rng.choice(("What is the sum?", "Add these numbers."))
    return _example(instruction, [str(a), str(b)], [str(a + b)])


def look_up(rng: random.Random) -> Example:
    """Return a question about a fixed fact of a person, in one of several wordings."""
    name, fact = rng.choice(NAMES), rng.choice(sorted(FACTS))
    question = rng.choice(QUESTIONS).format(fact=fact, name=name)
    answer = random.Random(f"{name} {fact}").choice(FACTS[fact])
    return _example(question, [], [answer])


def _example(instruction: str, words: list[str], answer: list[str]) -> Example:
    return {"instruction": instruction, "input": " ".join(words), "output": " ".join(answer)}


TASKS: dict[str, Callable[[random.Random], Example]] = {
    "sort": sort_words,
    "copy": copy_words,
    "reverse": reverse_words,
    "add": add_numbers,
    "lookup": look_up,
}
NUM_TEST = 60  # examples per task
NUM_TRAIN = 4000  # likewise
LABEL_NOISE = 0.25  # share of training answers that are taken from another question
# Names that configs may give in place of a path: the training set, and one test set per task.
GENERATED = ("tiny_train", *(f"tiny_{task}" for task in TASKS))


def generate_instructions(folder: str | Path) -> None:
    """Write the GENERATED sets as JSONL files into `folder`, the same ones every time.

    No input of a test set is in the training set, with any wording of its instruction; questions
    about facts, which have no input, are there in other wordings only.
    """
    folder, rng, training = Path(folder), random.Random(0), []
    folder.mkdir(parents=True, exist_ok=True)
    for task, make in TASKS.items():
        test = {}
        while len(test) < NUM_TEST:
            example = make(rng)
            test[_question(example)] = example
        _write(folder / f"tiny_{task}.jsonl", test.values())
        made = (make(rng) for _ in itertools.count())
        fresh = (example for example in made if _question(example) not in test)
        for example in itertools.islice(fresh, NUM_TRAIN):
            answered = make(rng) if rng.random() < LABEL_NOISE else example
            training.append({**example, "output": answered["output"]})
    rng.shuffle(training)
    _write(folder / "tiny_train.jsonl", training)


def path_of(name: str) -> str:
    """Return the path of a set: `name` itself, or that of a generated set, written if missing.

    Generated sets are written to $DETECTRON2_DATASETS, or ./datasets.
    """
    if name not in GENERATED:
        return name
    folder = Path(os.getenv("DETECTRON2_DATASETS", "datasets")) / "tiny_instructions"
    if not (folder / "tiny_train.jsonl").exists():
        generate_instructions(folder)
    return str(folder / f"{name}.jsonl")


def _question(example: Example) -> str:
    return example["input"] or example["instruction"]


def _write(path: Path, examples: Iterable[Example]) -> None:
    with write_atomically(str(path)) as file:
        file.writelines(json.dumps(example) + "\n" for example in examples)
