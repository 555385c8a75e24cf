"""The console's page of conversations, in a browser."""

from __future__ import annotations

import pytest
import pytest_asyncio
from playwright.async_api import expect

from schemas.conversations import names
from schemas.jobs.outcome import EnrichmentChange, Failure, failed_progress
from tests.web.console import chromium, page_of
from tests.web.pictures import seen
from tests.web.test_conversations import OWN, Service
from web.resources.conversations.views import CONVERSATION

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all

ID = names.processing_id(names.job_id("acme", CONVERSATION))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def service():
    async with Service() as service:
        yield service


async def test_a_conversation_is_asked_for_and_followed_to_its_mail(browser, service):
    async with page_of(browser, service, "#/acme?conversations") as page:
        await expect(page.locator("#conversations-none")).to_be_visible()
        await page.get_by_label("Conversation", exact=True).first.fill(CONVERSATION)
        await page.get_by_label("Mail the report to").fill("ann@example.com")
        await page.get_by_role("button", name="Process it").click()
        await expect(page.locator("#notice")).to_have_text("The conversation is on its way.")
        one, rows = page.locator("#conversation"), page.locator("#conversations-rows tr")
        await expect(one.locator("h3")).to_have_text(CONVERSATION)
        await expect(one.locator(".steps .running .step")).to_have_text("Fetching")
        await expect(rows).to_have_count(1)
        await expect(rows.first).to_contain_text("extracting")
        assert page.url.endswith(f"#/acme/{ID}?conversations")

        await service.completed("summary")
        await expect(one.locator(".steps .running .step")).to_have_text("Report")
        await expect(one.locator(".steps .done")).to_have_count(4)
        await expect(one).to_contain_text("They greet.")
        await expect(one).to_contain_text("Call back. · Zoe")
        await seen(page, "conversation-under-way")
        await service.step(enrichment=EnrichmentChange(run=1, kind="report", state="done"))
        await service.step(enrichment=EnrichmentChange(run=1, kind="mail", state="done"))
        await expect(one.locator(".pill")).to_have_text("completed")
        await expect(one.locator(".steps .done")).to_have_count(6)
        await expect(page.locator("#conversations-week")).to_contain_text("1 in seven days · 100 %")
        await expect(one.get_by_role("button", name="Cancel…")).to_have_count(0)

        async with page.expect_download() as download:
            await one.get_by_role("button", name="Transcript").click()
        assert (await download.value).suggested_filename == f"{CONVERSATION}.txt"
        await one.get_by_role("link", name="Words and recognizers").click()
        await expect(page.locator("#job")).to_be_visible()
        await expect(page.locator("#conversations")).to_be_hidden()


async def test_one_that_failed_says_what_to_do_and_goes_on(browser, service):
    await service.asked()
    await service.step(progress=failed_progress(1, "fetch", Failure("there is <b>none</b>", "not_found")))
    async with page_of(browser, service, f"#/acme/{ID}?conversations") as page:
        one = page.locator("#conversation")
        await expect(one.locator(".reason")).to_have_text("there is <b>none</b>")
        await expect(one).to_contain_text("ELEVENLABS_API_KEY")
        await expect(one.locator(".steps .failed .step")).to_have_text("Fetching")
        await expect(one.locator(".pill")).to_have_text("failed")
        await seen(page, "conversation-failed")
        await one.get_by_role("button", name="Go on").click()
        await expect(page.locator("#notice")).to_have_text("The conversation goes on where it ended.")
        await expect(one.locator(".pill")).to_have_text("extracting")


async def test_one_is_cancelled_after_a_question(browser, service):
    await service.asked()
    async with page_of(browser, service, f"#/acme/{ID}?conversations") as page:
        await page.locator("#conversation").get_by_role("button", name="Cancel…").click()
        await page.locator("#confirm-yes").click()
        await expect(page.locator("#conversation .pill")).to_have_text("cancelled")
        await expect(page.locator("#conversation .steps .failed")).to_contain_text("cancelled")
        assert (await service.json(OWN))["data"]["status"] == "cancelled"


async def test_the_list_is_narrowed_to_a_status_and_a_refusal_is_told(browser, service):
    for number in range(3):
        await service.asked(conversation_id=f"conv_{number}")
    await service.asked()
    await service.completed("summary", "report", "mail")
    async with page_of(browser, service, "#/acme?conversations") as page:
        rows = page.locator("#conversations-rows tr")
        await expect(rows).to_have_count(4)
        await page.locator("#conversations-status").select_option("completed")
        await expect(rows).to_have_count(1)
        await rows.first.get_by_role("link").click()
        await expect(page.locator("#conversation h3")).to_have_text(CONVERSATION)
        await page.route(
            "**/postprocess/conversation",
            lambda route: route.fulfill(status=422, json={"detail": "conversations are not processed here"}),
        )
        await page.get_by_label("Conversation", exact=True).first.fill("conv_9")
        await page.get_by_label("Mail the report to").fill("ann@example.com")
        await page.get_by_role("button", name="Process it").click()
        await expect(page.locator("#notice")).to_have_text("conversations are not processed here")
        assert await page.get_by_label("Mail the report to").input_value() == "ann@example.com"


async def test_it_fits_on_a_narrow_screen(browser, service):
    await service.asked()
    async with page_of(browser, service, f"#/acme/{ID}?conversations", viewport={"width": 390, "height": 800}) as page:
        await expect(page.locator("#conversation h3")).to_be_visible()
        await seen(page, "conversation-narrow")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
