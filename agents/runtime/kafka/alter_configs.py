"""The request IncrementalAlterConfigs (KIP-339): changes some of a topic's configuration and keeps the rest.

aiokafka has only AlterConfigs, which resets every setting that it does not name.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

#: The value of `config_operation` that sets a configuration.
_SET = 0


async def alter_configs(admin: AIOKafkaAdminClient, topic: str, configs: Mapping[str, str]) -> None:
    """Set these configurations of a topic. Raises KafkaError when the broker refuses them or does not answer."""
    client = admin._client  # noqa: SLF001 - the admin client has no public way to send a request of its caller's
    response = await client.send(client.get_random_node(), IncrementalAlterConfigsRequest(topic, configs))
    for code, message, *_ in response.responses:
        if code:
            raise for_code(code)(message)


class IncrementalAlterConfigsResponse(Response):  # type: ignore[misc]
    """The broker's answer: an error code and message for each resource."""

    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "responses",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class IncrementalAlterConfigsRequest_v0(RequestStruct):  # type: ignore[misc] # noqa: N801 - aiokafka's style
    """Version 0 of the request on the wire."""

    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = IncrementalAlterConfigsResponse
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "configs",
                    Array(("name", String("utf-8")), ("config_operation", Int8), ("value", String("utf-8"))),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class IncrementalAlterConfigsRequest(Request[IncrementalAlterConfigsRequest_v0]):  # type: ignore[misc]
    """The request to set some configurations of one topic."""

    API_KEY = 44

    def __init__(self, topic: str, configs: Mapping[str, str]) -> None:
        self._topic = topic
        self._configs = configs

    def build(self, request_struct_class: type[IncrementalAlterConfigsRequest_v0]) -> IncrementalAlterConfigsRequest_v0:
        """The request in the version that the broker supports."""
        entries = [(name, _SET, value) for name, value in self._configs.items()]
        return request_struct_class([(ConfigResourceType.TOPIC, self._topic, entries)], False)
