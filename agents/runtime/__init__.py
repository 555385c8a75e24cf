"""What runs stages: Faust, group commit, backpressure, leases, supervision. A stage imports `stage` alone of it."""
