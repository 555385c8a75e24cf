"""What is shown: status, transcripts and health over HTTP. Knows neither Faust nor settings; what it needs is handed
in.
"""
