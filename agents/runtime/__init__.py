"""Runs the stages: Faust, group commit, backpressure, leased tasks, supervision. A stage imports only `stage` of it."""
