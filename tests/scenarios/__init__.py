"""What happens to real runs, in the processes of the command line, on real servers, when things break."""
