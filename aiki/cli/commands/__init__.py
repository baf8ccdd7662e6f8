"""The commands: what can be typed, and what it means.

Nothing here imports more than click: what a command does is imported when it is
done, so that help and mistakes are answered at once.
"""
