"""On, shadow or off: whether a topic is shown, only evaluated, or neither; and who switches it."""

from collections.abc import Collection, Mapping
from typing import Literal, get_args

from cds_service.errors import did_you_mean

Mode = Literal["on", "shadow", "off"]
MODES: tuple[Mode, ...] = get_args(Mode)
EVERY = "*"  # every topic


def topic_and_mode(text: str) -> tuple[str, Mode]:
    """The topic and the mode of TOPIC=MODE; raises ValueError."""
    topic, _, mode = text.partition("=")
    for known in MODES:
        if topic and mode == known:
            return topic, known
    raise ValueError(f"{text}: must be TOPIC=on, TOPIC=shadow or TOPIC=off")


def switched(modes: Mapping[str, Mode], asked: Mapping[str, Mode]) -> dict[str, Mode]:
    """The modes of all topics after somebody has switched some of them, in that order."""
    found = dict(modes)
    for name, mode in asked.items():
        for topic in modes if name == EVERY else (name,):
            found[topic] = mode
    return found


def unknown_topic(asked: Collection[str], topics: Collection[str]) -> tuple[str, str] | None:
    """The first name that no topic has, and what to say of it; None when each has one."""
    for name in asked:
        if name != EVERY and name not in topics:
            return name, f"is no topic{did_you_mean(name, topics)}; there are {', '.join(topics)}"
    return None
