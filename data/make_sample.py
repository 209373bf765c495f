"""Write the sample corpus: about 100 KB of English of our own, for tests that train a tiny model.

    python -m data.make_sample --output data/sample

A small grammar, written for this project, and a fixed seed: every run writes the same bytes. The
four sources differ in form (tales, recipes, a weather log, dialogues), so that metrics cut by
source differ too.
"""

import argparse
import json
import random
import re
from pathlib import Path

SEED = 20
DOCUMENTS = 34  # a source: with 10% held out, some thirteen documents are left to evaluate on

# What a {slot} may become. A slot keeps its first value for the rest of the document if its name
# begins with a capital: a tale has one hero, not a new one in each sentence.
WORDS: dict[str, list[str]] = {
    "Hero": ["Maren", "Old Tobit", "Ysolde", "Piet", "the ferryman", "Anselm", "Greta", "Corin"],
    "Friend": ["the lamplighter", "her cousin Wren", "Brother Luke", "the widow Hale", "Jory"],
    "Town": ["Saltmouth", "Greywater", "Hollin Quay", "Farrow's Landing", "Tern Bay"],
    "Boat": ["the Patient Heron", "the Second Chance", "the Marigold", "the Blue Anna"],
    "Thing": ["a brass key", "a letter without a name", "a bell that would not ring", "a lost oar"],
    "Dish": ["barley soup", "plum bread", "leek pie", "oat bread", "onion tart", "apple cake"],
    "Root": ["onions", "turnips", "leeks", "carrots", "parsnips"],
    "Fruit": ["plums", "apples", "pears", "quinces", "dried figs"],
    "Station": ["the north tower", "the mill roof", "the harbour wall", "the chapel hill"],
    "One": ["GARDENER", "MILLER", "SISTER", "PUPIL"],
    "Two": ["TRAVELLER", "CLERK", "BROTHER", "TEACHER"],
    "Plant": ["the pear tree", "the hop vine", "the old rose", "the bean row", "the fig"],
    "weather": ["rain", "a thin fog", "clear cold air", "a warm wind", "sleet", "soft grey light"],
    "wind": ["north", "south", "east", "west", "north-west", "south-east"],
    "strength": ["light", "fresh", "steady", "strong", "uncertain"],
    "hour": ["at dawn", "before noon", "in the afternoon", "at dusk", "after midnight"],
    "many": ["two", "three", "four", "five", "seven", "nine", "a dozen"],
    "slow": ["slowly", "without hurry", "carefully", "as if by habit", "with great patience"],
    "good": ["good", "honest", "fair", "useful", "quiet", "small"],
    "said": ["said", "answered", "whispered", "remarked", "called out"],
    "spice": ["salt", "pepper", "a little nutmeg", "a bay leaf", "a spoon of honey"],
    "pot": ["an iron pot", "a deep pan", "a clay dish", "the largest bowl you own"],
    "bird": ["gulls", "rooks", "two herons", "a single owl", "the starlings", "wild geese"],
    "sea": ["the tide", "the grey water", "the harbour", "the far shore", "the river mouth"],
}  # fmt: skip

Stages = list[tuple[int, list[str]]]  # how many sentences to take, and from which

TALE: Stages = [
    (2, [
        "In {Town}, where {sea} is never far from anyone's door, there lived {Hero}.",
        "{Hero} had kept {Boat} for {many} years and had never once been late.",
        "There was {weather} over {Town} on the morning when {Hero} found {Thing}.",
        "Nobody in {Town} remembered who had built {Boat}, and nobody had thought to ask.",
    ]),
    (5, [
        "It lay in the bottom of {Boat}, under {many} coils of rope, and it was not wet at all.",
        "\"This is not mine,\" {said} {Friend}, \"but I know what it is for.\"",
        "{Hero} looked at {sea} {slow} and counted {many} waves before speaking.",
        "All that day there was {weather}, and the {bird} flew low along {sea}.",
        "They rowed out {hour}, {slow}, while {bird} cried behind them.",
        "{Friend} held the lantern, and {Hero} held {Thing}, and neither of them spoke.",
        "\"A {good} promise,\" {said} {Hero}, \"is lighter to carry than a broken one.\"",
        "By the steps of the quay {many} people had gathered, though no one had called them.",
        "The wind turned to the {wind}, and {Boat} turned with it, {slow}.",
        "{Friend} told a story about {Town} that began with {weather} and ended with a wedding.",
        "They waited until {sea} was still, and then they waited a little longer.",
    ]),
    (2, [
        "So {Thing} went back to the place where it belonged, and {Town} slept well that night.",
        "{Hero} never told the rest of it, and {Friend} never asked.",
        "If you go to {Town} in {weather}, you may still see {Boat} at the end of the quay.",
        "And that is why the {bird} of {Town} are fed before anybody else {hour}.",
    ]),
]  # fmt: skip

RECIPE: Stages = [
    (2, [
        "For {Dish} take {many} {Root} and as many {Fruit} as you can hold in two hands.",
        "{Dish}, as we made it at home, wants {many} {Root}, a pound of flour and time.",
        "The best {Dish} is made {hour}, when the kitchen is quiet.",
        "Do not begin {Dish} when you are in a hurry; it knows, and it will burn.",
    ]),
    (5, [
        "Wash the {Root} {slow} and cut them into {many} pieces each.",
        "Put everything in {pot} with {spice}, and cover it with cold water.",
        "Stir it {slow}, always the same way round, until the spoon stands up.",
        "Add {spice}, taste it, and add {spice} if it still seems shy.",
        "The {Fruit} go in last, since they need no more than {many} minutes.",
        "Set {pot} by the fire, and leave it there while you lay the table.",
        "Some people add {spice}; they are {good} people, but they are wrong.",
        "When there is {weather} outside, give it {many} minutes more.",
        "Peel the {Fruit} if they are old, and leave the skins on if they are young.",
        "Let it rest {slow}; a {good} cook sits down here and does nothing at all.",
    ]),
    (2, [
        "Serve {Dish} warm, with bread, to {many} friends or to one hungry child.",
        "It keeps for {many} days in {pot}, if nobody finds it.",
        "What is left of {Dish} may be fried in the morning with {spice}.",
        "My grandmother wrote nothing down, so the rest you must find out for yourself.",
    ]),
]  # fmt: skip

LOG: Stages = [
    (2, [
        "Observed from {Station}, {hour}: wind {wind}, {strength}, with {weather}.",
        "{Station}. Day began with {weather}; wind {wind} and {strength}.",
        "Entry for {Station}, written {hour}. The glass has fallen by {many} points.",
        "Entry for {Station}, written {hour}. The glass has risen by {many} points.",
    ]),
    (6, [
        "Wind went round to the {wind} {hour} and stayed there, {strength}.",
        "Saw {bird} over {sea}, going {wind}, some {many} of them.",
        "There was {weather} for {many} hours, and then {weather}.",
        "Emptied the rain gauge {hour}: {many} parts in a hundred.",
        "Could see {sea} from {Station} as clearly as my own hand.",
        "Could not see {sea} at all {hour}, though I could hear it {slow} at work.",
        "No change since the last entry but {weather} in the {wind}.",
        "Mended the vane {slow}; it points {wind} when the wind is {wind}, which is a beginning.",
        "The boy brought bread and the news that there had been {weather} inland.",
        "Lightning in the {wind} {hour}, {many} flashes, too far away to be heard.",
    ]),
    (1, [
        "Expect {weather} tomorrow, wind {wind}, {strength}.",
        "Nothing more to record, and I am glad of it.",
        "Lamp out {hour}. All well at {Station}.",
        "I should not be surprised by {weather} before the week is out.",
    ]),
]  # fmt: skip

DIALOGUE: Stages = [
    (2, [
        "{One}. Have you looked at {Plant} today?",
        "{Two}. I came by {sea}, and I saw {Plant} from the road.",
        "{One}. It is {weather} that I fear, not the cold.",
        "{Two}. They told me you would be here {hour}, beside {Plant}.",
    ]),
    (6, [
        "{One}. A {good} question. Ask it again when you have dug {many} holes.",
        "{Two}. And if there is {weather} when it flowers?",
        "{One}. Then we shall wait {slow}, as {Plant} does.",
        "{Two}. I have read {many} books, and not one of them mentions {bird}.",
        "{One}. Water it {hour}, never more, and speak to it {slow}.",
        "{Two}. You talk of {Plant} as though it could hear us.",
        "{One}. It has heard {bird} all its life. Why should it not hear you?",
        "{Two}. My {good} friend, I have {many} miles to walk and no coat for {weather}.",
        "{One}. Then take {many} of these, and plant them where the wind is {wind}.",
        "{Two}. In {many} years I shall come back and tell you what became of them.",
        "{One}. Hold this branch. No, {slow}: it is older than both of us.",
    ]),
    (1, [
        "{Two}. Good night, then. {Plant} and I shall think about it.\n\n[They go in.]",
        "{One}. Listen: {bird}. It will be {weather} by morning.\n\n[They listen.]",
        "{Two}. I begin to see what you mean.\n\n[{Two} sits down beside {Plant}.]",
        "{One}. Shut the gate when you go.\n\n[Exit {Two}, {slow}.]",
    ]),
]  # fmt: skip

# Each source: its sentences, and what stands between two of them.
SOURCES: dict[str, tuple[Stages, str]] = {
    "harbour_tales": (TALE, " "),
    "kitchen_book": (RECIPE, " "),
    "weather_log": (LOG, "\n"),
    "garden_dialogues": (DIALOGUE, "\n\n"),
}


def write_document(stages: Stages, separator: str, rng: random.Random) -> str:
    """One document: sentences of each stage in turn, none of them twice, every slot filled."""
    kept: dict[str, str] = {}

    def fill(match: re.Match) -> str:
        slot = match.group(1)
        if slot[0].isupper():
            return kept.setdefault(slot, rng.choice(WORDS[slot]))
        return rng.choice(WORDS[slot])

    sentences = []
    for count, templates in stages:
        for template in rng.sample(templates, count):
            sentence = re.sub(r"\{(\w+)\}", fill, template)
            sentences.append(sentence[0].upper() + sentence[1:])
    return separator.join(sentences)


def write_sample(folder: Path) -> None:
    """Writes `<source>.jsonl` for each source into the folder; the same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    for source, (stages, separator) in SOURCES.items():
        rng = random.Random(
            f"{SEED} {source}"
        )  # of its own, so that sources do not depend on order
        lines = [
            json.dumps({"text": write_document(stages, separator, rng), "source": source})
            for _ in range(DOCUMENTS)
        ]
        (folder / f"{source}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Writes the sample where the command line says."""
    parser = argparse.ArgumentParser(prog="python -m data.make_sample")
    parser.add_argument("--output", type=Path, default=Path("data/sample"))
    write_sample(parser.parse_args(arguments).output)


if __name__ == "__main__":
    main()
