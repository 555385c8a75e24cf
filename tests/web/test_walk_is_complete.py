"""The walk over another tenant's things (`tests.web.walk`) knows every resource that a worker serves."""

from __future__ import annotations

import web.app
from agents.fleet import conversations, http, webhooks
from agents.fleet.api import uploads
from agents.fleet.search import serving
from tests.web import corrections, walk


def resources_of(*modules):
    """The names of the resources that these modules import."""
    classes = [item for module in modules for item in vars(module).values() if isinstance(item, type)]
    return {
        item.__name__ for item in classes if item.__module__.startswith("web.resources.") and hasattr(item, "routes")
    }


def test_the_walk_calls_every_resource_that_a_worker_serves():
    served = resources_of(http, webhooks, uploads, serving, conversations)
    without_a_tenants_key = {"Callbacks", "ReceivedTranscripts", "ConversationHints"}  # a provider's token or signature
    names_nothing = {"StorageInformation"}

    assert served - resources_of(web.app, corrections, walk) == without_a_tenants_key | names_nothing
