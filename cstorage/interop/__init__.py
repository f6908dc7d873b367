"""Interoperation with the on-disk format of containers/storage: project, adopt, export, convert."""
