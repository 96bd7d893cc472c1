"""The entities that are synchronized: what they are on both sides, and how one becomes the other.

Knows nothing of Dagster, HTTP, files or the ledger.
"""

from ccs_dacs_pipeline.entities.mapping import Mapped, Mapper
from ccs_dacs_pipeline.entities.model import Eligibility, Entity, MappingContext
from ccs_dacs_pipeline.entities.profile import Column, Dialect, EntityLayout, LayoutError, LayoutProfile, load_profile
from ccs_dacs_pipeline.entities.registry import ENTITIES, entity_named
from ccs_dacs_pipeline.entities.rules import Rule

__all__ = [
    "ENTITIES",
    "Column",
    "Dialect",
    "Eligibility",
    "Entity",
    "EntityLayout",
    "LayoutError",
    "LayoutProfile",
    "Mapped",
    "Mapper",
    "MappingContext",
    "Rule",
    "entity_named",
    "load_profile",
]
