"""Row-level security of every table with tenants' rows, read from PostgreSQL's catalogue after all migrations.

Tables on which concord_tenant has no rights need none: that, too, is read from the catalogue.
"""

from __future__ import annotations

import asyncio

import pytest

from schemas.errors import Unavailable
from sinks.postgres.database import Postgres, connect_pool
from tests.contract.databases.cases import created, job

#: The roles that people's requests read and write with.
ROLES = ("concord_tenant", "concord_writer")

#: Tables of this schema that have a column `tenant_id` and that the role $1 may do anything with.
TENANT_TABLES = """
SELECT c.oid::regclass::text AS name, c.relrowsecurity AS secured,
       pg_has_role($1, c.relowner, 'MEMBER') AND NOT c.relforcerowsecurity AS owned
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
  AND (has_any_column_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
       OR has_table_privilege($1, c.oid, 'DELETE, TRUNCATE, TRIGGER'))
ORDER BY c.relname"""

#: Conditions of the permissive policies that hold for the role $2; one of them is enough to see a row.
POLICIES = """
SELECT pg_get_expr(polqual, polrelid) AS condition, pg_get_expr(polwithcheck, polrelid) AS checked FROM pg_policy
WHERE polrelid = $1::text::regclass AND polpermissive
  AND EXISTS (SELECT FROM unnest(polroles) AS r (oid)
              WHERE r.oid = 0 OR pg_has_role($2, r.oid, 'MEMBER'))"""

OWN_ROWS = "(tenant_id = current_setting('concord.tenant'::text, true))"


async def unprotected(db, role) -> list[str]:
    """Tables whose rows a tenant could see, or change, although they belong to another, in sentences."""
    return [fault for table in await db.fetch(TENANT_TABLES, role) if (fault := await _fault(db, table, role))]


async def _fault(db, table, role) -> str | None:
    policies = await db.fetch(POLICIES, table["name"], role)
    if not table["secured"]:
        return f"{table['name']} has tenant_id, {role} has rights on it, and row-level security is not enabled"
    if table["owned"]:
        return f"{table['name']} belongs to a role of {role}, and row-level security is not forced"
    if not policies:
        return f"{table['name']} has no policy for {role}"
    if any({*row} - {None} != {OWN_ROWS} for row in policies):
        return f"{table['name']} has a policy for {role} that does not compare tenant_id with concord.tenant"
    return None


@pytest.mark.parametrize("role", ROLES)
async def test_a_tenant_sees_its_own_rows_only_in_every_table_that_it_may_use(db, role):
    assert await unprotected(db, role) == []
    assert {"jobs", "transcripts", "usage"} <= {row["name"] for row in await db.fetch(TENANT_TABLES, role)}


async def test_no_role_can_pass_row_level_security(db):
    roles = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'concord\\_%' AND (rolsuper OR rolbypassrls)"
    owners = "SELECT relname FROM pg_class WHERE pg_has_role($1, relowner, 'MEMBER')"

    assert await db.fetch(roles) == []
    assert [await db.fetch(owners, role) for role in ROLES] == [[], []]


GRANT = "GRANT SELECT ON notes TO concord_tenant"
ENABLE = "ALTER TABLE notes ENABLE ROW LEVEL SECURITY"


@pytest.mark.parametrize(
    ("statements", "fault"),
    [
        ([], None),
        (["GRANT SELECT (n) ON notes TO concord_tenant"], "row-level security is not enabled"),
        (["GRANT DELETE ON notes TO PUBLIC"], "row-level security is not enabled"),
        ([GRANT, ENABLE], "notes has no policy for concord_tenant"),
        (
            [GRANT, ENABLE, "CREATE POLICY tenant ON notes USING (true)"],
            "does not compare tenant_id",
        ),
        (
            [GRANT, ENABLE, f"CREATE POLICY tenant ON notes USING {OWN_ROWS}"],
            None,
        ),
        (["ALTER TABLE notes OWNER TO concord_tenant", ENABLE], "row-level security is not forced"),
    ],
)
async def test_a_table_with_tenants_rows_that_is_not_protected_is_named(db, statements, fault):
    await db.execute("CREATE TABLE notes (tenant_id text NOT NULL, n integer)")
    for statement in statements:
        await db.execute(statement)
    faults = await unprotected(db, "concord_tenant")

    assert len(faults) == (fault is not None)
    assert fault is None or (fault in faults[0] and "notes" in faults[0])


async def test_steps_of_a_tenant_change_its_own_jobs_only(migrated, db):
    pool = await connect_pool(migrated)
    database = Postgres(pool)
    try:
        await database.acting_as("acme").commit([created(job("a1", "acme"))])
        with pytest.raises(Unavailable, match="InsufficientPrivilege"):
            await database.acting_as("bolt").commit([created(job("a2", "acme"))])
        unseen = await database.acting_as("bolt").job("acme", "a1")
    finally:
        await asyncio.wait_for(pool.close(), 5)

    assert [row["job_id"] for row in await db.fetch("SELECT job_id FROM jobs")] == ["a1"]
    assert {row["tenant_id"] for row in await db.fetch("SELECT tenant_id FROM outbox")} == {"acme"}
    assert unseen is None
