"""The command `assay`.

`main` puts the verbs together; each module here owns one noun and exports a typer application.
Verbs of other packages (the runtime's, for instance) come in through the entry points groups
`assay.commands` and `assay.bench` (see `plugins`).

Rules: every verb takes `--json` and prints one JSON value on standard output, nothing else; errors
are one line on standard error (with `--json`, one JSON object with `reason` and `detail`); exit
codes are 0 for yes, 1 for no or failed, 2 for a wrong call. Secrets come from files or descriptors;
a prompt is a last resort, never the only way. Values that matter go to standard output, progress to
standard error.

Must never import: runtime.
"""
