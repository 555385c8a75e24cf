"""What happens to every request around its route: ids, the access log, CORS, compression, methods and slashes."""
