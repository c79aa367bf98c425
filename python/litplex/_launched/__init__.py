"""Output of the processes that the server launches, workers and the app host alike.

``request_marks`` marks printed lines with the requests that cause them, ``log_records`` prints
records as JSON objects, ``tracebacks`` leaves the frames of this package out.
"""
