"""The HTTP interface: status, transcripts, recordings and health of a fleet's jobs. It imports neither Faust nor
settings; what it needs are arguments of `web.app.make_app`.
"""
