"""The thirteen numbers of one bulk, as pure functions over Arrow tables: no database, no clock."""

from bulkscope_studio.analysis.report.bulk import analyse
from bulkscope_studio.analysis.report.model import BulkReport, to_json

__all__ = ["BulkReport", "analyse", "to_json"]
