"""Namespace of the generated schemas: ``assay.v1`` is made by the build from ``proto/assay/v1``."""
