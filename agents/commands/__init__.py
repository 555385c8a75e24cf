"""The commands of `concord`, one file each: `add(subparsers)` says what it takes, `run(arguments, settings)` does
it.
"""
