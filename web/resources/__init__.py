"""The resources of the HTTP interface: one file each, with its routes, parameters, models, examples and handlers.

Another route is an entry in its resource's `routes`; another resource is a file here and a line in `web.app.make_app`.
"""
