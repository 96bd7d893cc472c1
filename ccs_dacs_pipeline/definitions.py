"""The code location. Loads from settings and the layout profile alone; no network, no database (interface.md)."""

import warnings
from collections.abc import Mapping

import dagster as dg

from ccs_dacs_pipeline.assets import build_assets
from ccs_dacs_pipeline.assets.foreign_file import foreign_file_spec
from ccs_dacs_pipeline.dacs.names import FileNameTemplate
from ccs_dacs_pipeline.entities import load_profile
from ccs_dacs_pipeline.jobs import deliver_acknowledgements, sync_jobs, tidy_up, transfer_files
from ccs_dacs_pipeline.resources import site_resource
from ccs_dacs_pipeline.schedules import tidy_schedule
from ccs_dacs_pipeline.sensors import acknowledgements_sensor, foreign_files_sensor, pending_sensor
from ccs_dacs_pipeline.settings import load_settings


def build_defs(*, overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """Returns the definitions of a site.

    Args:
        overrides: resources that replace ours, by name: `site` gives a test its own world.

    Raises:
        SettingsError: a setting is wrong.
        LayoutError: the layout profile is wrong.
        FileNameError: the template of file names is wrong.
    """
    _silence_dagsters_remark()
    settings = load_settings()
    _ = FileNameTemplate.parse(settings.file_name_template)  # else a run finds it, when requests are claimed already
    assets = build_assets(load_profile(settings.layout_profile, datetime_format=settings.datetime_format))
    jobs = sync_jobs(assets)
    running = settings.sensors == "on"
    return dg.Definitions(
        assets=[*assets, foreign_file_spec()],
        jobs=[*jobs, deliver_acknowledgements, transfer_files, tidy_up],
        schedules=[tidy_schedule(running=running, zone=settings.base_time_zone)],
        sensors=[
            pending_sensor(jobs, running=running),
            acknowledgements_sensor(running=running),
            foreign_files_sensor(running=running),
        ],
        resources={"site": site_resource, **(overrides or {})},
        # For runs begun by hand too: the steps of a run share its leases, one after the other.
        executor=dg.in_process_executor,
    )


def _silence_dagsters_remark() -> None:
    """Dagster warns of a parameter that only its own code passes; it does so later, when it resolves the sensors."""
    warnings.filterwarnings(
        "ignore", message=r"Parameter `owners` of initializer `SensorDefinition\.", category=dg.BetaWarning
    )


defs = build_defs()
