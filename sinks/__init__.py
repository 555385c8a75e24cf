"""Where results rest. `ports` says what Concord asks of a database and of a blob store; the implementations are in
`postgres`, in `blobs`, and in `memory`, the doubles for tests.
"""
