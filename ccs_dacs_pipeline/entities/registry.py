"""The entities there are. A new one is a module beside this one, a line here, and its table in the layout profiles."""

from ccs_dacs_pipeline.entities.model import Entity
from ccs_dacs_pipeline.entities.person import PERSON
from ccs_dacs_pipeline.entities.service_agreement import SERVICE_AGREEMENT
from ccs_dacs_pipeline.entities.service_point import SERVICE_POINT

ENTITIES: tuple[Entity, ...] = (
    PERSON,
    SERVICE_POINT,
    SERVICE_AGREEMENT,
)
"""In sending order: a metered service refers to the two before it (record-layouts.md, Order)."""


def entity_named(name: str) -> Entity:
    """The entity of a DACS name (``contact``) or a CCS name (``person``).

    Raises:
        KeyError: if there is none; names those there are.
    """
    for entity in ENTITIES:
        if name in (entity.name, entity.source):
            return entity
    raise KeyError(f"There is no entity {name!r}; choose one of {', '.join(entity.name for entity in ENTITIES)}.")
