"""What decoding a recording could not hear: where, how much, and how to say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

#: Seconds between two interruptions that are told as one: bit rot comes in bursts.
_NEAR_S = 1.0
#: Places that are named; the rest is counted.
_NAMED = 5
#: Seconds in all from which pauses are worth a word: shorter ones are jitter.
_LONG_PAUSE_S = 1.0
#: The same for what was lost.
_LONG_LOSS_S = 0.25


@dataclass(slots=True)
class Interruption:
    """A place where sound is missing."""

    #: Seconds from the recording's start.
    at_s: float
    #: Seconds that are silence in its place, where the container's clock tells.
    gap_s: float
    #: What could not be decoded there, or was jumped over.
    size: int
    packets: int


@dataclass(slots=True)
class Tally:
    """What decoding a track went through so far. What is bad after the last good packet is the tail."""

    decoded_s: float = 0.0
    #: Decoded time and the pauses between: the recording's own clock.
    end_s: float = 0.0
    packets: int = 0
    good_bytes: int = 0
    losses: list[Interruption] = field(default_factory=list)
    #: Where the container's clock jumped and nothing says that anything was lost.
    pauses: list[Interruption] = field(default_factory=list)
    #: Bytes and packets of the tail, and the part of the file that they are in.
    tail_bytes: int = 0
    tail_packets: int = 0
    tail: tuple[int, int] | None = None

    def bad(self, size: int, place: int | None = None, packets: int = 1) -> None:
        """A packet that could not be decoded, or bytes that were jumped over, at that place of the file."""
        self.packets += packets
        self.tail_packets += packets
        self.tail_bytes += size
        if place is not None and size:
            self.tail = (self.tail[0] if self.tail else place, place + size)

    def forget_tail(self) -> None:
        """What was bad was no sound."""
        self.tail_bytes = self.tail_packets = 0
        self.tail = None

    def interrupted(self, gap_s: float, *, lost: bool) -> None:
        """A good packet follows, after a gap of so many seconds: what was bad before it was not the end."""
        into = self.losses if lost else self.pauses
        last = into[-1] if into else None
        if last is not None and self.end_s - last.at_s - last.gap_s <= _NEAR_S:
            last.gap_s += gap_s
            last.size += self.tail_bytes
            last.packets += self.tail_packets
        else:
            into.append(Interruption(self.end_s, gap_s, self.tail_bytes, self.tail_packets))
        self.forget_tail()

    @property
    def byte_rate(self) -> float:
        """Bytes a second of what could be decoded."""
        return self.good_bytes / self.decoded_s if self.decoded_s else 0.0

    def damage(self) -> float:
        """Share of the recording, up to its last good packet, that could not be decoded: by bytes, packets or time."""
        size = sum(loss.size for loss in self.losses)
        packets = self.packets - self.tail_packets
        return max(
            size / (self.good_bytes + size) if size else 0.0,
            sum(loss.packets for loss in self.losses) / packets if packets else 0.0,
            sum(loss.gap_s for loss in self.losses) / self.end_s if self.end_s else 0.0,
        )

    def lost_s(self, loss: Interruption) -> float:
        """Seconds of sound that a loss took; by the clock, or else estimated from its bytes or packets."""
        if loss.gap_s:
            return loss.gap_s
        good = self.packets - self.tail_packets - sum(each.packets for each in self.losses)
        by_packets = loss.packets * self.decoded_s / good if good > 0 else 0.0
        return loss.size / self.byte_rate if loss.size and self.byte_rate else by_packets

    def notes(self, clock: Callable[[float], str], lost_s: float | None = None) -> list[str]:
        """What a reader of the transcript should know. `lost_s` is what was lost in all, if that is known better."""
        notes = []
        lengths = [self.lost_s(loss) for loss in self.losses]
        total = sum(lengths) if lost_s is None else lost_s
        if total >= _LONG_LOSS_S:
            places = _places([loss.at_s for loss in self.losses], clock)
            notes.append(f"The recording is damaged: about {clock(total)} of it could not be heard ({places}).")
        pauses = [pause for pause in self.pauses if pause.at_s]
        if (paused := sum(pause.gap_s for pause in pauses)) >= _LONG_PAUSE_S:
            places = _places([pause.at_s for pause in pauses], clock)
            notes.append(
                f"The recording's clock goes on without sound for {clock(paused)} ({places}): it was paused or muted "
                "there, or sound is missing."
            )
        return notes


def _places(times: Sequence[float], clock: Callable[[float], str]) -> str:
    named = ", ".join(clock(time) for time in times[:_NAMED])
    more = f" and {len(times) - _NAMED} more places" if len(times) > _NAMED else ""
    return f"at {named}{more}"
