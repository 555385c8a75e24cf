"""Words of sentences that are not part of names, addresses and e-mail addresses, and lists of names and places."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

#: Words that hold sentences together; none of them is a part of a name.
FUNCTION_WORDS: Final = frozenset(
    "[] a about address after again all also am an and any are aren't as at be because been before being but by "
    "calling can can't could did didn't do does doesn't don't down e-mail email for from get go going gonna got had "
    "has have haven't he he's hello her here here's hers hi him his how i i'd i'll i'm i've if in into is isn't it "
    "it's its just know let let's like mail me mine my no not now number of off oh okay ok on one or our ours out "
    "over please really right said same say send she she's should so some speaking sure tell than thank thanks that "
    "that's the their them then there there's these they they're this those to too two um uh under until up us use "
    "very was we we'd we'll we're we've well were what what's when where which who who's why will with won't would "
    "write yeah yes yep yet you you're you'll you've your yours alright account back call contact confirm correct "
    "date good great reach spelled spell actually maybe another other new old only even still".split()
)

#: First names that are words as well: alone, they are none.
_WORDS_TOO: Final = frozenset(
    "in my will an so see may many man love long season hope young guy else soon major son art america song chance "
    "summer miss king star april bill al september ok china august sun numbers lady brain german france sunday spring "
    "rich winter gay queen royal rose jack junior paris faith christian israel van florida martin frank prince moon "
    "ray ben forest loan grant golden taylor max era asia ma virginia un tiny clinton desire don bell hang ha lane "
    "grace matt joy irish sydney hong carolina princess marine jordan dan santa le roman angel georgia pa mac drew "
    "min temple chase jane walker houston dallas na kit buddy crystal diamond jay hunter ward angle chelsea honey "
    "carter austin rob glory gene liberty mi robin foster precious lincoln eve del manual clay mark page dick jean "
    "sterling pearl ruby amber ivory cash gray grey brown green dale dean glen heath cliff ford harley royce early "
    "worth merry holly ivy daisy violet ginger olive autumn june december january monday tuesday friday wednesday "
    "thursday saturday deal price real total march july october november february echo delta mercy patience constance "
    "prudence destiny harmony melody charity treasure reed rusty sandy stormy sunny skip chip buck bud duke earl "
    "judge sergeant captain gale lucky dusty misty candy cherry berry hazel iris lily myrtle fern fawn kitty birdie "
    "bunny bliss dong thanh san shan sung tai thu tu twana wan wei wes ja ji jin ka ki kam ko lai lan li lu mai mei "
    "hoa ho hai mack media cody denver savannah phoenix madison brooklyn chad kenya india britain london lyn shy "
    "cotton levi tory tesla carry carol ali law dell corey lacy lake maple park porter rocky shade shelby storm "
    "trinity victor wade west wood world york zone apple arrow blossom bright cloud".split()
)

#: States of the USA, by name and code, in lower case.
STATES: Final = frozenset(
    "alabama|alaska|arizona|arkansas|california|colorado|connecticut|delaware|florida|georgia|hawaii|idaho|illinois|"
    "indiana|iowa|kansas|kentucky|louisiana|maine|maryland|massachusetts|michigan|minnesota|mississippi|missouri|"
    "montana|nebraska|nevada|new hampshire|new jersey|new mexico|new york|north carolina|north dakota|ohio|oklahoma|"
    "oregon|pennsylvania|rhode island|south carolina|south dakota|tennessee|texas|utah|vermont|virginia|washington|"
    "west virginia|wisconsin|wyoming|d.c|dc".split("|")
)
STATE_CODES: Final = frozenset(
    "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA "
    "RI SC SD TN TX UT VT VA WA WV WI WY DC".split()
)


@cache
def first_names() -> frozenset[str]:
    """First names of the census of the USA in lower case, without those that are words as well."""
    return all_first_names() - _WORDS_TOO


@cache
def all_first_names() -> frozenset[str]:
    """The same with those that are words, too, such as "Martin" and "Grace"."""
    return (_census("first:male") | _census("first:female")) - FUNCTION_WORDS


@cache
def last_names() -> frozenset[str]:
    """Last names of the census of the USA, in lower case: 88,799, among them words."""
    return _census("last")


def _census(which: str) -> frozenset[str]:
    from names import FILES

    lines = Path(FILES[which]).read_text("ascii").splitlines()
    return frozenset(line.split()[0].lower() for line in lines if line.strip())
