"""The commands of `concord`, one module each: `add(subparsers)` adds arguments, `run(arguments, settings)` runs it."""
