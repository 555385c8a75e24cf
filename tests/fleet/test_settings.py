"""What a tenant has set holds for its recordings, and for nobody else's."""

from schemas.accounts.settings import AccountSettings
from tests.fleet.conftest import FakeRecognizer
from tests.web.service import UUID


async def test_only_the_tenants_recognizers_hear_its_recordings_within_its_deadline(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"), FakeRecognizer("b", text="never"), enrichments=("document",))
    database = scenario.fleet.database
    own = AccountSettings(recognizers=("a", "gone"), enrich=False)
    await database.save_account_settings("t", own, 0, "x")
    await database.save_account_settings("late", AccountSettings(deadline_s=30), 0, "x")
    for tenant in ("t", "late"):
        await scenario.upload(UUID, tenant)
    began = database.clock()
    await scenario.fleet.run()

    requests = {tenant: await database.requests(tenant, UUID, 1) for tenant in ("t", "late")}
    assert {tenant: [one.provider for one in some] for tenant, some in requests.items()} == {
        "t": ["a"],
        "late": ["a", "b"],
    }
    late = await database.job("late", UUID)
    assert (late.status, (late.completed_at - began).total_seconds() < 60) == ("completed", True)
    assert {key[0] for key in database.enrichments} == {"late"}


async def test_a_tenant_whose_recognizers_are_all_gone_is_heard_by_the_installations(make_scenario):
    scenario = make_scenario(FakeRecognizer("a"), FakeRecognizer("b"))
    await scenario.fleet.database.save_account_settings("t", AccountSettings(recognizers=("gone",)), 0, "x")
    await scenario.upload()
    await scenario.fleet.run()

    assert [topic for topic, *_ in scenario.terminal()] == ["persisted"]
    assert set(scenario.recognizers["b"].charges.values()) == {1}
