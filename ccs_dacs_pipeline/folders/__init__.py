"""The extract and the upload folder behind one small interface, and publishing from one to the other."""

from ccs_dacs_pipeline.folders.folder import (
    Entry,
    FileExists,
    FileMissing,
    Folder,
    FolderDenied,
    FolderError,
    FolderFull,
    TemporaryFile,
)
from ccs_dacs_pipeline.folders.local import LocalFolder
from ccs_dacs_pipeline.folders.publish import (
    Published,
    SourceDiffers,
    SourceMissing,
    TargetDiffers,
    brought,
    publish,
    take_away,
)
from ccs_dacs_pipeline.folders.url import FolderAccess, open_folder

__all__ = [
    "Entry",
    "FileExists",
    "FileMissing",
    "Folder",
    "FolderAccess",
    "FolderDenied",
    "FolderError",
    "FolderFull",
    "LocalFolder",
    "Published",
    "SourceDiffers",
    "SourceMissing",
    "TargetDiffers",
    "TemporaryFile",
    "brought",
    "open_folder",
    "publish",
    "take_away",
]
