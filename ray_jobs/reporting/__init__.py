"""Build the report: charts, tables, pages."""
