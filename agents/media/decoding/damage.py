"""Records which parts of a recording could not be decoded, and describes them in notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: Seconds between two interruptions that are reported as one: corrupted bits come in bursts.
_NEAR_S = 1.0
#: Positions that a note contains; the others are counted.
_LISTED = 5
#: Total seconds from which pauses get a note: shorter ones are jitter.
_LONG_PAUSE_S = 1.0
#: Total seconds from which losses get a note.
_LONG_LOSS_S = 0.25


@dataclass(slots=True)
class Interruption:
    """A position at which sound is missing."""

    #: Seconds from the recording's start.
    at_s: float
    #: Seconds of silence in its place, if the container has timestamps.
    gap_s: float
    #: Bytes and packets that could not be decoded there, or were skipped.
    size: int
    packets: int


@dataclass(slots=True)
class Tally:
    """What decoding a track has counted so far. Undecodable data after the last decodable packet are the tail."""

    decoded_s: float = 0.0
    #: Decoded time plus the pauses: the position in the recording.
    end_s: float = 0.0
    packets: int = 0
    good_bytes: int = 0
    losses: list[Interruption] = field(default_factory=list)
    #: Jumps of the container's timestamps without a sign that anything was lost.
    pauses: list[Interruption] = field(default_factory=list)
    #: Bytes and packets of the tail, and its first and last offset in the file.
    tail_bytes: int = 0
    tail_packets: int = 0
    tail: tuple[int, int] | None = None

    def bad(self, size: int, offset: int | None = None, packets: int = 1) -> None:
        """Count an undecodable packet, or skipped bytes, at that offset of the file."""
        self.packets += packets
        self.tail_packets += packets
        self.tail_bytes += size
        if offset is not None and size:
            self.tail = (self.tail[0] if self.tail else offset, offset + size)

    def forget_tail(self) -> None:
        """Discard the tail: it was not sound, or is recorded as an interruption."""
        self.tail_bytes = self.tail_packets = 0
        self.tail = None

    def interrupted(self, gap_s: float, *, lost: bool) -> None:
        """Record that a decodable packet follows the tail after a gap of `gap_s` seconds, as a loss or as a pause."""
        interruptions = self.losses if lost else self.pauses
        last = interruptions[-1] if interruptions else None
        if last is not None and self.end_s - last.at_s - last.gap_s <= _NEAR_S:
            last.gap_s += gap_s
            last.size += self.tail_bytes
            last.packets += self.tail_packets
        else:
            interruptions.append(Interruption(self.end_s, gap_s, self.tail_bytes, self.tail_packets))
        self.forget_tail()

    @property
    def byte_rate(self) -> float:
        """Bytes per second of the decoded sound."""
        return self.good_bytes / self.decoded_s if self.decoded_s else 0.0

    def damage(self) -> float:
        """The share (0 to 1) of the recording, up to its last decodable packet, that is lost.

        The largest of the shares by bytes, by packets and by time.
        """
        size = sum(loss.size for loss in self.losses)
        packets = self.packets - self.tail_packets
        return max(
            size / (self.good_bytes + size) if size else 0.0,
            sum(loss.packets for loss in self.losses) / packets if packets else 0.0,
            sum(loss.gap_s for loss in self.losses) / self.end_s if self.end_s else 0.0,
        )

    def lost_s(self, loss: Interruption) -> float:
        """Seconds of sound that are lost: by timestamps if there are any, else estimated from bytes or packets."""
        if loss.gap_s:
            return loss.gap_s
        good = self.packets - self.tail_packets - sum(each.packets for each in self.losses)
        by_packets = loss.packets * self.decoded_s / good if good > 0 else 0.0
        return loss.size / self.byte_rate if loss.size and self.byte_rate else by_packets

    def notes(self, lost_s: float | None = None) -> list[str]:
        """What a reader of the transcript should know. `lost_s` is the total loss, if it is known more exactly."""
        notes = []
        lengths = [self.lost_s(loss) for loss in self.losses]
        total = sum(lengths) if lost_s is None else lost_s
        if total >= _LONG_LOSS_S:
            positions = _positions([loss.at_s for loss in self.losses])
            notes.append(
                f"The recording is damaged: about {duration_text(total)} of it could not be heard ({positions})."
            )
        pauses = [pause for pause in self.pauses if pause.at_s]
        if (paused := sum(pause.gap_s for pause in pauses)) >= _LONG_PAUSE_S:
            positions = _positions([pause.at_s for pause in pauses])
            notes.append(
                f"The recording's clock goes on without sound for {duration_text(paused)} ({positions}): it was paused "
                "or muted there, or sound is missing."
            )
        return notes


def _positions(times_s: Sequence[float]) -> str:
    listed = ", ".join(duration_text(time_s) for time_s in times_s[:_LISTED])
    more = f" and {len(times_s) - _LISTED} more places" if len(times_s) > _LISTED else ""
    return f"at {listed}{more}"


def duration_text(seconds: float) -> str:
    """A duration for people: "7.5 s", "12:05 min", "1:02:03 h"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h" if minutes >= 60 else f"{minutes}:{rest:02} min"
