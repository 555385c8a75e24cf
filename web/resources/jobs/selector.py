"""The parameters by which a request names a job."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from schemas.errors import NotFound
from schemas.ids import Whose
from web.auth.caller import Caller
from web.parameters import JobName, Parameters, TenantName
from web.problems import NO_JOB


class JobSelector(Parameters):
    """Names a job by its id or reference. An operator may add the tenant; a tenant's key selects that tenant's jobs."""

    #: Of a request for a status, a tenth of its CPU time went into reading these.
    is_remembered: ClassVar[bool] = True

    id: JobName
    tenant: TenantName | None = Field(None, description="whose job it is, where an operator asks")

    def scope(self, caller: Caller) -> tuple[Whose, str]:
        """Whose jobs are searched, and the job's name.

        Raises:
            NotFound: the caller does not see this tenant.
        """
        if self.tenant is None:
            return caller.whose, self.id
        if not caller.sees(self.tenant):
            raise NotFound(NO_JOB)
        return self.tenant, self.id


#: The error of a route whose job several tenants have, when an operator names none of them.
AMBIGUOUS = "several tenants have a job of this name; `tenants` lists them, `?tenant=` chooses"
