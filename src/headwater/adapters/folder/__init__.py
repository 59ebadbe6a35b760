"""A folder that services share, as a place for claims."""

from headwater.adapters.folder.claims import FolderClaims

__all__ = ["FolderClaims"]
