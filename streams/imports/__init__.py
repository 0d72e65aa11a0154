"""Logs of other tools as recordings: MCAP, ROS bags, ULog, CSV and Parquet, by a mapping."""
