"""The asset `upload/foreign_file`: files of CCS's own batches, each moved file a materialization.

Not partitioned and not executable: a moved file cannot be made anew (docs/decisions/0014-one-job-for-foreign-files.md).
"""

import dagster as dg

from ccs_dacs_pipeline.assets.work import OWNERS
from ccs_dacs_pipeline.sync.foreign import Sent
from ccs_dacs_pipeline.sync.site import Site

KEY = dg.AssetKey(["upload", "foreign_file"])


def foreign_file_spec() -> dg.AssetSpec:
    """Returns the asset as the catalog shows it."""
    return dg.AssetSpec(
        KEY,
        group_name="upload",
        kinds={"file"},
        owners=OWNERS,
        description=(
            "A file that one of CCS's own batches wrote, moved to DACS's upload folder as it is by the job "
            "transfer_files: one materialization per file."
        ),
    )


def materialization(site: Site, sent: Sent) -> dg.AssetMaterialization:
    """Returns the event of a moved file."""
    metadata = {**vars(sent), "from": site.extract.url, "to": site.upload.url}
    return dg.AssetMaterialization(KEY, description=sent.name, metadata=metadata)
