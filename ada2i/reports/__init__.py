"""Reports: pages of a run and of an audit, markdown, plots."""

__all__ = ["audit_report", "plots", "report", "templates"]
