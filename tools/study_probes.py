"""To be written."""

from tools.studies import Study

STUDIES: dict[str, Study] = {}
