"""The discovery answer: what each service listens to, and the queries it would like prefetched."""

from msgspec import Struct

from cds_service.content import Content


class DiscoveredService(Struct, omit_defaults=True, rename="camel"):
    """One entry of discovery (CDS Hooks 2.0, "Discovery")."""

    hook: str
    id: str
    title: str
    description: str
    prefetch: dict[str, str]
    usage_requirements: str


class Discovery(Struct):
    """The services of this server."""

    services: list[DiscoveredService]


def discovery(content: Content) -> Discovery:
    """Every service, in the order of the content; prefetch keys keep the order of the file."""
    return Discovery(
        [
            DiscoveredService(
                hook=service.hook,
                id=service.id,
                title=service.title,
                description=service.description,
                prefetch={key.name: key.template for key in family.keys.keys},
                usage_requirements=service.usage_requirements,
            )
            for family, service in content.services()
        ]
    )
