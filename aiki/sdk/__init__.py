"""What a workflow author imports: tasks, workflows, the run, the client."""
