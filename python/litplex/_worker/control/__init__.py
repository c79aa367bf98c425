"""The control connection and what travels on it: cancellation, credit, health and metrics.

``registry`` holds the items of work in progress, which the control thread and a loop share.
"""
