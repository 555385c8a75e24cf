"""Makes PDFs in a subprocess: setting an hour's transcript computes for seconds, which no event loop may wait for."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

from agents.media.subprocess_worker import Worker, WorkerDied, begin, serve
from agents.reports.content import Report
from schemas.errors import InvalidInput, Transient

#: Seconds for one PDF: 60 pages take one on an idle processor, the longest report four.
PDF_S: Final = 120.0

#: Seconds for the templates of one mail.
MAIL_S: Final = 30.0


class Renderer:
    """One subprocess, which is started when it is first needed; requests wait for each other."""

    def __init__(self) -> None:
        self._worker = Worker("agents.reports.rendering")

    async def pdf(self, report: Report) -> bytes:
        """The report as PDF; the same bytes for the same report.

        Raises:
            InvalidInput: It cannot be made of this report.
            Transient: The process was killed from outside.
            Unavailable: No process can be started.
        """
        try:
            answer = await self._worker.ask({"report": report.model_dump(mode="json")}, stall_s=PDF_S)
        except TimeoutError as exc:
            raise InvalidInput(f"the report was not made within {PDF_S:.0f} s") from exc
        except WorkerDied as exc:
            raise _died("the report was not made", exc) from exc
        return base64.b64decode(answer["pdf"])

    async def mail(self, templates: Mapping[str, str | None], values: Mapping[str, Any]) -> dict[str, str]:
        """Subject, text and HTML of a mail about a report, by a tenant's templates or the default ones.

        Raises:
            InvalidInput: A template fails on these values, or comes to no end.
            Transient: The process was killed from outside.
            Unavailable: No process can be started.
        """
        try:
            answer = await self._worker.ask({"templates": templates, "values": values}, stall_s=MAIL_S)
        except TimeoutError as exc:
            raise InvalidInput(f"the mail's templates were not rendered within {MAIL_S:.0f} s") from exc
        except WorkerDied as exc:
            raise _died("the mail's templates were not rendered", exc) from exc
        if "refused" in answer:
            raise InvalidInput(answer["refused"])
        return {part: answer[part] for part in ("subject", "text", "html")}

    async def close(self) -> None:
        """End the subprocess. Safe to call twice."""
        await self._worker.close()


def _died(what: str, exc: WorkerDied) -> InvalidInput | Transient:
    return (InvalidInput if exc.crashed else Transient)(f"{what}: {exc}")


# What follows runs in the subprocess.


def _answer(request: dict[str, Any], _: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    if "templates" in request:
        from agents.reports.templates import rendered

        try:
            return rendered(request["templates"], request["values"])
        except (InvalidInput, MemoryError) as exc:
            return {"refused": str(exc) or type(exc).__name__}
    from agents.reports.pdf import pdf

    return {"pdf": base64.b64encode(pdf(Report.model_validate(request["report"]))).decode()}


def main() -> None:
    """The subprocess: `python -m agents.reports.rendering`."""
    begin()
    serve(_answer)


if __name__ == "__main__":
    main()
