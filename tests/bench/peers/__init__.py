"""One program per stream processor, run in an environment that is not ours.

Each takes the broker, the topic of readings, the topic of results and the number of readings, and
puts one JSON result per key and window of 100 ms, the latest value of four fields, on the second.
"""
