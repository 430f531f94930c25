"""The thirteen numbers of one bulk, as pure functions over Arrow tables: no database, no clock."""

from bulkscope_studio.analysis.bulk import analyse
from bulkscope_studio.analysis.model import BulkReport, to_json

__all__ = ["BulkReport", "analyse", "to_json"]
