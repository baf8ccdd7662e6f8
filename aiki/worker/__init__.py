"""Runs the code of workflow authors: the private event loop, replay, the execution of tasks, the service."""
